"""The processes of one tiny training, each with the environment that `torchrun` sets, and the comparison of two runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import tiny_training as tiny

from capprune.training.run import BEST, LAST, read_checkpoint, read_metrics

TOLERANCE = 1e-4  # relative, of losses: float32 sums in another order, over some hundred steps


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(
    folder: Path, overrides: tuple[str, ...], world: int = 2, moment: tuple[str, str] = ("SIGTERM", "-1")
) -> list:
    """The processes of one training; the signal is for the first of them."""
    shared = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    found = []
    for rank in range(world):
        own = {**shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1}
        command = [
            sys.executable,
            tiny.__file__,
            str(folder),
            ",".join(overrides),
            *(moment if rank == 0 else ("SIGTERM", "-1")),
        ]
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
        found.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    return found


def ended(processes: list) -> list[tuple[int, str]]:
    told = [process.communicate(timeout=240)[1] for process in processes]
    return [(process.returncode, words) for process, words in zip(processes, told, strict=True)]


def losses(folder: Path) -> list[float]:
    return [float(str(value)) for line in read_metrics(folder) for key, value in line.items() if key.endswith("loss")]


def assert_equal_runs(first: Path, second: Path) -> None:
    np.testing.assert_allclose(losses(first), losses(second), rtol=TOLERANCE)
    lines = [[line for line in read_metrics(folder) if "cider" in line] for folder in (first, second)]
    assert [line["cider"] for line in lines[0]] == [line["cider"] for line in lines[1]]
    assert read_checkpoint(first / BEST).facts == read_checkpoint(second / BEST).facts  # sparsity among them
    one, other = (read_checkpoint(folder / LAST).tensors for folder in (first, second))
    assert all(np.allclose(one[name], other[name], rtol=1e-2, atol=1e-4) for name in one)
