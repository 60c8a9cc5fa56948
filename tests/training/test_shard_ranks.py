"""Two processes that train from shards read each photo once an epoch, and train what one process trains."""

from __future__ import annotations

import hashlib
import json
from itertools import chain
from pathlib import Path

import pytest
import tiny_training as tiny
from rank_processes import assert_equal_runs, ended, start

from capprune.training.run import LAST, read_metrics
from capprune_runtime.errors import DataError

EPOCHS = 12
BATCHES = 2  # an epoch of 24 photos: 23, and one photo for two processes
RUN = (f"training.epochs={EPOCHS}", "training.photos_per_batch=23")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.shards_of_the_world(tmp_path_factory.mktemp("drawn") / "x")


def photos_read(folder: Path, rank: int) -> list[list[int]]:
    return [json.loads(line) for line in Path(f"{folder}.{rank}.photos").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_from_shards_train_what_one_trains(shards: Path, tmp_path: Path) -> None:
    run = (*RUN, f"data.shards={shards}", "data.shuffle_photos=8")
    assert ended(start(tmp_path / "two", run)) == [(0, "")] * 2
    record = tmp_path / "one.photos"
    tiny.trainer(tmp_path / "one", *run, "training.accumulate=2", record=record).run()
    assert_equal_runs(tmp_path / "one", tmp_path / "two")
    assert read_metrics(tmp_path / "two")[-1]["step"] == EPOCHS * BATCHES
    own = [photos_read(tmp_path / "two", rank) for rank in range(2)]
    alone = [json.loads(line) for line in record.read_text().splitlines()]
    assert sorted(chain(*alone)) == sorted(chain(*own[0], *own[1])) == sorted(EPOCHS * list(range(tiny.PHOTOS)))
    assert [sorted(map(len, reads)) for reads in own] == [[1] * EPOCHS + [12] * EPOCHS, [11] * EPOCHS]
    for epoch in range(EPOCHS):  # rank 0 reads the one photo of the short batch
        parts = chain(*own[0][BATCHES * epoch : BATCHES * (epoch + 1)], own[1][epoch])
        assert sorted(parts) == list(range(tiny.PHOTOS))


@pytest.mark.slow
def test_photo_that_one_process_cannot_read_ends_both_with_the_same_error(shards: Path, tmp_path: Path) -> None:
    broken = tiny.shards_of_the_world(tmp_path / "broken")
    tar = broken / "train-000002.tar"
    content = bytearray(tar.read_bytes())
    content[bytes(content).index(b"NUMPY") + 90] ^= 1
    tar.write_bytes(content)
    run = (*RUN, f"data.shards={broken}")
    found = ended(start(tmp_path / "run", run))
    assert [code for code, _ in found] == [DataError.exit_code] * 2
    assert all("a shard is cut off or has been altered" in words and "train-000002.tar" in words for _, words in found)
    digest = hashlib.sha256((shards / tar.name).read_bytes()).digest()
    assert digest != hashlib.sha256(content).digest()
    assert not (tmp_path / "run" / LAST).exists()
