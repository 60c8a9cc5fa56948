"""A command that is stopped or runs out of disk says so, leaves nothing half-written, and goes on when typed again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from capprune.training.run import BEST, read_checkpoint
from cli.conftest import Walk, capprune

PATIENCE = 120.0  # seconds until a command must have reached the place where it is stopped


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "capprune", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    process.send_signal(number)
    _, complaints = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in complaints, complaints
    return process.returncode, complaints


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, path
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 143)], ids=["ctrl-c", "preempted"])
@pytest.mark.slow
def test_a_stopped_training_goes_on_when_typed_again(walk: Walk, tmp_path: Path, number: int, code: int) -> None:
    arguments = ("train", walk.config, "--out", tmp_path / "run", "--cache", walk.cache)
    process = start(*arguments)
    wait_for(tmp_path / "run" / "state" / "state.safetensors", process)
    ended, complaints = stop(process, number)
    assert ended == code
    assert f"resume with: capprune train {walk.config} --out {tmp_path / 'run'}" in complaints
    assert (tmp_path / "run" / "state" / "state.safetensors").is_file()
    assert capprune(*arguments).code == 0
    assert not (tmp_path / "run" / "state").exists()
    whole, resumed = (read_checkpoint(run / BEST).tensors for run in (walk.run, tmp_path / "run"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)  # as if it had never been stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_drawing_leaves_nothing(tmp_path: Path, number: int) -> None:
    process = start("data", "scenes", "--out", tmp_path / "here" / "scenes", "--train", 20000)
    wait_for(tmp_path / "here", process)
    time.sleep(0.3)
    assert stop(process, number)[0] == (130 if number == signal.SIGINT else 143)
    assert not list((tmp_path / "here").iterdir())


def test_a_stopped_export_leaves_nothing(walk: Walk, tmp_path: Path) -> None:
    process = start("export", walk.run, "--out", tmp_path / "bundle")
    assert process.stderr is not None
    assert "converting the encoder" in process.stderr.readline()
    time.sleep(1)
    assert stop(process, signal.SIGTERM)[0] == 143
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", ["ImportError", "CapPruneError"])
def test_a_stop_that_a_library_takes_for_a_failure_is_still_a_stop(error: str) -> None:
    command = f"""
import os, signal
from capprune.cli import app
from capprune_runtime import stopping
from capprune_runtime.errors import CapPruneError

def loaded(*arguments, **options):
    stopping.listen()  # as the group does once a command is imported
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        raise {error}("initialization failed")

app.cli.main = loaded
app.main()
"""
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "capprune", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_named_and_nothing_is_left(walk: Walk, small_disk: Path) -> None:
    commands = {
        "drawing": ("data", "scenes", "--out", small_disk / "scenes", "--train", 2000),
        "features": ("train", walk.config, "--out", walk.folder / "other", "--cache", small_disk / "cache"),
        "training": ("train", walk.config, "--out", small_disk / "run", "--cache", walk.cache),
        "export": ("export", walk.run, "--out", small_disk / "bundle"),
    }
    for what, arguments in commands.items():
        done = capprune(*arguments)
        assert done.code == 1 and "disk is full" in done.err, (what, done.err)
        assert not list(small_disk.rglob(".*")), what  # what is being written has a dot in front
        subprocess.run(["rm", "-rf", *map(str, small_disk.iterdir())], check=True)


def test_a_read_only_place_is_a_usage_error(walk: Walk, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    assert capprune("export", walk.run, "--out", tmp_path / "bundle").code == 2
