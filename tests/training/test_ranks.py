"""Two processes train what one process trains with the same batches, and end together."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny
import torch
from rank_processes import assert_equal_runs, ended, start

from capprune.models.search import greedy
from capprune.training.batches import parts_of
from capprune.training.outcome import Split
from capprune.training.run import BEST, LAST, STATE, load_teacher, read_checkpoint

UNEVEN = "training.photos_per_batch=23"  # the second batch of an epoch has one photo
SPARSE = (*tiny.SPARSE, "training.epochs=60", UNEVEN)
QUIET = "decoder.dropout={rnn: 0.0, attention: 0.0}"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes."""
    folder = tmp_path_factory.mktemp("two") / "run"
    assert ended(start(folder, SPARSE)) == [(0, "")] * 2
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run of one process, each batch in two parts."""
    folder = tmp_path_factory.mktemp("one") / "run"
    tiny.trainer(folder, *SPARSE, "training.accumulate=2").run()
    return folder


def captions(folder: Path, photos: Split) -> list[tuple[int, ...]]:
    """Greedy captions of a run's best checkpoint."""
    decoder = load_teacher(folder, tiny.VOCABULARY, tiny.FEATURES)
    features = torch.from_numpy(photos.features[np.arange(len(photos.names))]).float()
    with torch.inference_mode():
        return greedy(decoder, decoder.encode(features), 6).tokens


@pytest.mark.slow
def test_two_processes_train_what_one_trains_in_two_parts(two: Path, one: Path) -> None:
    """With dropout and sampled masks: noise belongs to a part of a batch, not to a process."""
    assert_equal_runs(one, two)


@pytest.mark.slow
def test_two_processes_without_dropout_train_what_one_trains(tmp_path: Path) -> None:
    assert ended(start(tmp_path / "two", (*SPARSE, QUIET))) == [(0, "")] * 2
    tiny.trainer(tmp_path / "one", *SPARSE, QUIET).run()
    assert_equal_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_processes_caption_100_new_photos_as_one(two: Path, one: Path) -> None:
    said = [captions(folder, tiny.split(7, 100)) for folder in (one, two)]
    assert sum(first == second for first, second in zip(*said, strict=True)) >= 95
    assert len(set(said[0])) > len(tiny.COLOURS)  # the captions depend on the photos


@pytest.mark.slow
def test_signal_to_one_process_stops_both_with_one_state_and_they_go_on(two: Path, tmp_path: Path) -> None:
    stopped = ended(start(tmp_path / "run", SPARSE, moment=("SIGUSR1", "31")))
    assert stopped == [(143, "")] * 2
    facts = read_checkpoint(tmp_path / "run" / STATE).facts
    assert (facts["step"], facts["processes"]) == ("31", "2")
    assert ended(start(tmp_path / "run", SPARSE)) == [(0, "")] * 2
    for name in (BEST, LAST):
        assert (tmp_path / "run" / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.slow
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
