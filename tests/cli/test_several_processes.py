"""`capprune train --devices 2`: the run of one process, one message, one exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from capprune.training.run import BEST, METRICS, read_checkpoint
from cli.conftest import Walk, capprune

pytestmark = pytest.mark.slow
PATIENCE = 240.0


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "capprune", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def test_two_processes_make_the_run_of_one(walk: Walk, tmp_path: Path) -> None:
    common = ("train", walk.config, "--cache", walk.cache, "--json")
    two = capprune(*common, "--out", tmp_path / "two", "--devices", 2)
    one = capprune(*common, "--out", tmp_path / "one", "training.accumulate=2")
    assert (two.code, one.code) == (0, 0), two.err
    facts = [json.loads(done.out) for done in (two, one)]
    assert facts[0]["best_epoch"] == facts[1]["best_epoch"]
    assert facts[0]["sparsity"] == facts[1]["sparsity"]
    assert facts[0]["cider_d_val"] == pytest.approx(facts[1]["cider_d_val"], abs=0.02)
    weights = [read_checkpoint(tmp_path / name / BEST).tensors for name in ("one", "two")]
    assert all(torch.allclose(value, weights[1][name], rtol=1e-2, atol=1e-3) for name, value in weights[0].items())


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_process_ends_the_command_with_its_name(rank: int, walk: Walk, tmp_path: Path) -> None:
    arguments = ("train", walk.config, "training.epochs=5000", "--cache", walk.cache, "--devices", 2)
    process = start(*arguments, "--out", tmp_path / "run")
    wait_for(tmp_path / "run" / METRICS)
    ranks = children(process.pid)
    victim = next(one for one in ranks if f"RANK={rank}\0" in Path(f"/proc/{one}/environ").read_text())
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert time.monotonic() - began < 60
    assert f"rank {rank} of 2 (process {victim})" in complaint and "SIGKILL" in complaint
    assert not any(Path(f"/proc/{one}").exists() for one in ranks)


def test_signal_to_the_command_reaches_all_processes(walk: Walk, tmp_path: Path) -> None:
    arguments = ("train", walk.config, "training.epochs=5000", "--cache", walk.cache, "--devices", 2)
    process = start(*arguments, "--out", tmp_path / "run")
    wait_for(tmp_path / "run" / METRICS)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert complaint.count("resume with: capprune train") == 1
