"""Trainings that are killed with `kill -9` at random moments end with the weights of one that was left alone."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from capprune.training.run import BEST, LAST, read_checkpoint

RUN = (*tiny.SPARSE, "training.epochs=60", "training.save_every=2 steps")
LONGEST = 2.0  # seconds after the first step; a whole run takes about as long


def weights_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (BEST, LAST):
        for key, value in sorted(read_checkpoint(folder / name).tensors.items()):
            digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def train(folder: Path, moment: str, *more: str) -> int:
    command = [sys.executable, tiny.__file__, str(folder), ",".join((*RUN, *more)), "SIGKILL", moment]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny.trainer(folder, *RUN).run()
    torch.set_num_threads(threads)
    return weights_hash(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 20])
def test_training_killed_at_random_moments_ends_with_the_same_weights(
    kills: int, undisturbed: str, tmp_path: Path
) -> None:
    moments, done, runs = random.Random(kills), 0, 0
    while done < kills:
        folder, runs = tmp_path / f"run-{runs}", runs + 1
        while train(folder, f"{moments.uniform(0, LONGEST / 2):.3f}s") != 0:
            done += 1
            if done == kills:
                assert train(folder, "-1") == 0
                break
        assert weights_hash(folder) == undisturbed
        assert not list(folder.rglob("*.partial"))
        assert runs < 3 * kills, "the moments come after the end of the runs"


@pytest.mark.slow
def test_training_from_shards_killed_at_random_moments_ends_with_the_same_weights(tmp_path: Path) -> None:
    streamed = f"data.shards={tiny.shards_of_the_world(tmp_path / 'shards')}", "data.shuffle_photos=8"
    assert train(tmp_path / "whole", "-1", *streamed) == 0
    moments, kills = random.Random(7), 0
    for attempt in range(9):
        kills += train(tmp_path / "cut", f"{moments.uniform(0, LONGEST / 4):.3f}s", *streamed) != 0
        if kills == 3:
            break
        if (tmp_path / "cut" / LAST).exists():
            (tmp_path / "cut").rename(tmp_path / f"ended-{attempt}")
    assert kills == 3, "the moments come after the end of the runs"
    assert train(tmp_path / "cut", "-1", *streamed) == 0
    assert weights_hash(tmp_path / "cut") == weights_hash(tmp_path / "whole")
