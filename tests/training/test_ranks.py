"""Two processes train what one process trains with the same batches, and end together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny

from capprune.training.batches import parts_of
from capprune.training.run import BEST, LAST, STATE, read_checkpoint, read_metrics

TOLERANCE = 1e-4  # relative, of losses: float32 sums in another order, over some hundred steps
UNEVEN = "training.photos_per_batch=23"  # the second batch of an epoch has one photo
SPARSE = (*tiny.SPARSE, "training.epochs=60", UNEVEN)
QUIET = "decoder.dropout={rnn: 0.0, attention: 0.0}"


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


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes."""
    folder = tmp_path_factory.mktemp("two") / "run"
    assert ended(start(folder, SPARSE)) == [(0, "")] * 2
    return folder


def test_two_processes_train_what_one_trains_in_two_parts(two: Path, tmp_path: Path) -> None:
    """With dropout and sampled masks: noise belongs to a part of a batch, not to a process."""
    tiny.trainer(tmp_path / "one", *SPARSE, "training.accumulate=2").run()
    assert_equal_runs(tmp_path / "one", two)


@pytest.mark.slow
def test_two_processes_without_dropout_train_what_one_trains(tmp_path: Path) -> None:
    assert ended(start(tmp_path / "two", (*SPARSE, QUIET))) == [(0, "")] * 2
    tiny.trainer(tmp_path / "one", *SPARSE, QUIET).run()
    assert_equal_runs(tmp_path / "one", tmp_path / "two")


def test_signal_to_one_process_stops_both_with_one_state_and_they_go_on(two: Path, tmp_path: Path) -> None:
    stopped = ended(start(tmp_path / "run", SPARSE, moment=("SIGUSR1", "31")))
    assert stopped == [(143, "")] * 2
    facts = read_checkpoint(tmp_path / "run" / STATE).facts
    assert (facts["step"], facts["processes"]) == ("31", "2")
    assert ended(start(tmp_path / "run", SPARSE)) == [(0, "")] * 2
    for name in (BEST, LAST):
        assert (tmp_path / "run" / name).read_bytes() == (two / name).read_bytes()


def test_process_that_is_killed_stops_the_other_within_a_minute_with_its_name(tmp_path: Path) -> None:
    long = (*tiny.SPARSE, "training.epochs=20000")
    processes = start(tmp_path / "run", long)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / STATE).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    code, complaint = ended(processes)[0]
    assert code == 1
    assert time.monotonic() - began < 60
    assert re.search(
        rf"(?s)a process of this training is gone.*rank 1 of 2 \(.*process {processes[1].pid}, cpu\)", complaint
    )
    assert (tmp_path / "run" / STATE).is_file()


def test_parts_hold_all_photos_of_a_batch_once() -> None:
    batch = next(tiny.trainer_batches(5).epoch(0))
    for count in (1, 2, 3, 7):
        parts = parts_of(batch, count)
        assert len(parts) == count
        some = [part for part in parts if part is not None]
        assert np.concatenate([part.photos for part in some]).tolist() == batch.photos.tolist()
        assert sum(int((part.targets >= 0).sum()) for part in some) == int((batch.targets >= 0).sum())
        assert all((part.targets[:, -1] >= 0).any() for part in some)  # no column of padding alone
