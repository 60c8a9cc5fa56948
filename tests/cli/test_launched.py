"""One training by every way to launch it: one process, `--devices 2`, a real `torchrun`, and the variables of `srun`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capprune.trained import TrainedCaptioner
from capprune.training.launch import place_of
from capprune.training.run import BEST, LAST, METRICS, load_run
from cli.conftest import capprune
from cli.test_several_processes import wait_for

pytestmark = pytest.mark.slow
PATIENCE = 240.0
SCENES = 100
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port")
CONFIG = """
data: {folder: FOLDER, shards: SHARDS, minimum_count: 1, licence: drawn, shuffle_photos: 40}
encoder: {size: 32}
decoder: {embedding: 32, hidden: 64, attention: 64, context: 64}
training: {epochs: 14, photos_per_batch: 9, learning_rate: 0.005, validation_photos: 10, device: cpu, save_every: 10 minutes}
pruning: {method: supermask, sparsity: 0.8, kappa: 3000, tolerance: 0.5}
"""


@dataclass(frozen=True)
class World:
    """Drawn scenes, shards of their features, and a run of two processes that `--devices 2` has started."""

    folder: Path

    @property
    def command(self) -> tuple[object, ...]:
        return "train", self.folder / "c.yaml", "--cache", self.folder / "cache", "--out"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    found = World(folder := tmp_path_factory.mktemp("launched"))
    scenes, shards, config = folder / "scenes", folder / "shards", folder / "c.yaml"
    config.write_text(CONFIG.replace("FOLDER", str(scenes)).replace("SHARDS", str(shards)))
    drawn = ("data", "scenes", "--out", scenes, "--train", 80, "--val", 10, "--test", SCENES, "--size", 32)
    features = ("data", "features", scenes, "--config", config, "--photos-per-shard", 30, "--out", shards)
    for arguments in (drawn, features, (*found.command, folder / "two", "--devices", 2)):
        done = capprune(*arguments)
        assert done.code == 0, done.err
    return found


def start(command: Sequence[object], **environment: object) -> subprocess.Popen[str]:
    own = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}}
    line = [sys.executable, *map(str, command)]
    return subprocess.Popen(line, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    told = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), told
    return told


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def captions(world: World, run: Path) -> list[str]:
    photos = sorted((world.folder / "scenes" / "photos").iterdir())[-SCENES:]
    pixels = [np.asarray(Image.open(photo).convert("RGB")) for photo in photos]
    return [said.caption for said in TrainedCaptioner(load_run(run)).caption(pixels, 1)]


def assert_same_run(world: World, run: Path) -> None:
    for name in (BEST, LAST):
        assert (run / name).read_bytes() == (world.folder / "two" / name).read_bytes()


def test_two_processes_caption_100_scenes_as_one_process_does(world: World, tmp_path: Path) -> None:
    done = capprune(*world.command, tmp_path / "one", "training.accumulate=2")
    assert done.code == 0, done.err
    runs = tmp_path / "one", world.folder / "two"
    one, two = (captions(world, run) for run in runs)
    assert len(one) == SCENES and len(set(one)) > SCENES / 5
    assert sum(first == second for first, second in zip(one, two, strict=True)) >= 95
    kept = [(run.kept, run.prunable) for run in map(load_run, runs)]
    assert kept[0] == kept[1] and 0 < kept[0][0] < kept[0][1]


def test_torchrun_makes_the_run_of_the_command(world: World, tmp_path: Path) -> None:
    process = start([*TORCHRUN, free_port(), "-m", "capprune", *world.command, tmp_path / "run"])
    (out, _), *_ = ended([process])
    assert out.count("trained ") == 1
    assert_same_run(world, tmp_path / "run")


def test_variables_of_srun_make_the_run_of_the_command(world: World, tmp_path: Path) -> None:
    """What `srun --ntasks-per-node=2` sets; the port comes from the job's number."""
    job = {
        "SLURM_JOB_ID": 40000 + os.getpid() % 9000,
        "SLURM_STEP_ID": 0,
        "SLURM_NTASKS": 2,
        "SLURM_NTASKS_PER_NODE": 2,
    }
    job |= {"SLURM_NNODES": 1, "SLURM_NODEID": 0, "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": free_port()}
    line = ["-m", "capprune", *world.command, tmp_path / "run"]
    tasks = [{**job, "SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in range(2)]
    assert [place_of({name: str(value) for name, value in task.items()}).rank for task in tasks] == [0, 1]
    first, second = ended([start(line, **task) for task in tasks])
    assert "trained " in first[0] and second == ("", "")
    assert_same_run(world, tmp_path / "run")


def test_rank_that_dies_under_torchrun_ends_within_a_minute_with_its_name(world: World, tmp_path: Path) -> None:
    command = ["-m", "capprune", *world.command, tmp_path / "run", "training.epochs=5000"]
    process = start([*TORCHRUN, free_port(), *command])
    wait_for(tmp_path / "run" / METRICS)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    victim = next(one for one in ranks if "RANK=1\0" in Path(f"/proc/{one}/environ").read_text())
    began = time.monotonic()
    os.kill(int(victim), signal.SIGKILL)
    _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and time.monotonic() - began < 60
    assert re.search(rf"(?s)rank\s*: 1 .*pid: {victim}|rank 1 of 2 \(.*process {victim}", complaint), complaint
    assert not any(Path(f"/proc/{one}").exists() for one in ranks)
