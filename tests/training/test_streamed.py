"""Training from shards: each photo once an epoch, the same order for every process, and a resume at the exact place."""

from __future__ import annotations

import hashlib
import os
import signal
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_shards
import tiny_training as tiny

from capprune.data.features import cached_features
from capprune.data.photos import open_photos
from capprune.data.shards.make import ShardSettings, shard_photos
from capprune.data.shards.place import ShardPlace
from capprune.data.shards.reader import ShardPhotos
from capprune.training.launch import Place
from capprune.training.outcome import Progress
from capprune.training.run import BEST, LAST
from capprune.training.streamed import ShardBatches, ShardCaptions, ShardNames, ShardTable, Skipped
from capprune_runtime.errors import DataError, PhotoError

COUNT = 24
SIZE = 5  # photos of a batch


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.shards_of_the_world(tmp_path_factory.mktemp("drawn") / "x")


def opened(shards: Path, *, limit: int | None = None) -> ShardPhotos:
    place = ShardPlace(str(shards), shards / "cache")
    return ShardPhotos(place, place.index.of_split("train"), limit)


def batches(shards: Path, *, window: int = 8, limit: int | None = None, **options: Any) -> ShardBatches:
    photos = opened(shards, limit=limit)
    table = ShardTable(photos, size=None, stored=photos.place.index.encoder.shape)  # type: ignore[union-attr]
    return ShardBatches(
        photos,
        ShardCaptions(photos, tiny.ids),
        table,
        **{"photos_per_batch": SIZE, "shuffle_photos": window, "seed": 3, **options},
    )


def numbers(source: ShardBatches, epoch: int = 0, first: int = 0) -> list[list[int]]:
    return [batch.photos.tolist() for batch in source.epoch(epoch, first)]


@pytest.mark.parametrize("window", [1, 8, 12, 1000])
@pytest.mark.parametrize("limit", [None, 1, 17])
def test_each_photo_comes_up_once_an_epoch(shards: Path, window: int, limit: int | None) -> None:
    source = batches(shards, window=window, limit=limit)
    for epoch in range(3):
        found = numbers(source, epoch)
        assert sorted(chain(*found)) == list(range(limit or COUNT))
        assert len(found) == len(source) == -(-(limit or COUNT) // SIZE)
        assert sum(len(one) < SIZE for one in found) <= 1


def test_order_depends_on_seed_and_epoch_alone(shards: Path) -> None:
    first = numbers(batches(shards))
    assert numbers(batches(shards)) == first
    assert numbers(batches(shards), 1) != first and numbers(batches(shards, seed=4)) != first
    assert first != sorted(first)


@pytest.mark.parametrize("first", range(6))
def test_an_epoch_continues_from_any_batch(shards: Path, first: int) -> None:
    whole = list(batches(shards).epoch(2))
    rest = list(batches(shards).epoch(2, first))
    assert len(rest) == len(whole) - first
    for one, other in zip(whole[first:], rest, strict=True):
        assert np.array_equal(one.photos, other.photos) and np.array_equal(one.inputs, other.inputs)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_make_the_same_batches_and_share_out_the_reading(shards: Path, world: int, parts: int) -> None:
    alone, read = list(batches(shards).epoch(0)), Counter[int]()
    for rank in range(world):
        own = batches(shards, place=Place(rank, world, rank, world), parts=parts)
        own._table.ahead = read.update  # type: ignore[method-assign]
        own._table.problem = lambda photo: None  # type: ignore[method-assign]
        for one, other in zip(alone, own.epoch(0), strict=True):
            assert np.array_equal(one.photos, other.photos) and np.array_equal(one.targets, other.targets)
    assert read == Counter(range(COUNT))


def test_batches_hold_the_captions_of_their_photos(shards: Path) -> None:
    for batch in batches(shards).epoch(0):
        captions = [own for photo in batch.photos for own in tiny.split(1).captions[photo]]
        assert [tuple(row[row > 0][:-1].tolist()) for row in batch.targets] == [tuple(one) for one in captions]


def test_only_photos_of_a_window_stand_beside_each_other(shards: Path) -> None:
    order = list(chain(*numbers(batches(shards, window=5, photos_per_batch=1))))
    for shard in range(5):
        places = [place for place, photo in enumerate(order) if photo // 5 == shard]
        assert max(places) - min(places) < 5 + 4  # a window is full with its last shard


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("step", [3, 7, 14])
def test_interrupted_training_ends_with_the_bytes_of_an_undisturbed_one(
    shards: Path, tmp_path: Path, step: int
) -> None:
    streamed = f"data.shards={shards}", "data.shuffle_photos=8"
    tiny.trainer(tmp_path / "whole", *streamed).run()

    def stop(progress: Progress) -> None:
        if progress.cider is None and progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tiny.trainer(tmp_path / "cut", *streamed, report=stop).run()
    tiny.trainer(tmp_path / "cut", *streamed).run()
    for name in (BEST, LAST):
        assert digest(tmp_path / "cut" / name) == digest(tmp_path / "whole" / name)


@pytest.fixture
def photo_shards(tmp_path: Path) -> Path:
    data = tiny_shards.photo_folder(tmp_path / "noise", train=9, val=2)
    shard_photos(data, tmp_path / "photos", ShardSettings(photos_per_shard=4), cache=tmp_path / "cache")
    return tmp_path / "photos"


def test_table_shows_the_features_that_the_cache_would(photo_shards: Path, tmp_path: Path) -> None:
    photos, encoder = opened(photo_shards), tiny_shards.Stripes()
    table = ShardTable(photos, size=encoder.size, extractor=encoder)  # type: ignore[arg-type]
    names = list(ShardNames(photos))
    with open_photos(tmp_path / "noise") as store:
        cached = cached_features(store, names, encoder=encoder, cache=tmp_path / "cache", batch=4)
    assert table.shape == cached.shape
    for chosen in ([0], [8, 3, 3], range(9)):
        assert np.array_equal(table[np.array(chosen)], cached[np.array(chosen)])
    assert not table._ahead  # nothing stays in memory


def test_broken_photo_stops_or_is_skipped_and_named(photo_shards: Path) -> None:
    tar = photo_shards / "train-000001.tar"
    content = bytearray(tar.read_bytes())
    content[bytes(content).index(b"\x89PNG") + 30] ^= 1
    tar.write_bytes(content)
    photos = opened(photo_shards)
    table = ShardTable(photos, size=16)
    options = {"photos_per_batch": 3, "shuffle_photos": 4, "seed": 1}
    captions = ShardCaptions(photos, tiny.ids)
    with pytest.raises(PhotoError, match="train-000001"):
        list(ShardBatches(photos, captions, table, **options).epoch(0))  # type: ignore[arg-type]
    skipped = Skipped()
    source = ShardBatches(photos, captions, table, skipped=skipped, **options)  # type: ignore[arg-type]
    found = list(chain(*numbers(source)))
    assert len(found) == 8 and list(skipped.reasons) == [photos.row(({*range(9)} - {*found}).pop()).name]
    assert "skipped 1 photos" in str(skipped.note())


def test_missing_shard_is_never_skipped(photo_shards: Path) -> None:
    photos = opened(photo_shards)
    source = ShardBatches(
        photos,
        ShardCaptions(photos, tiny.ids),
        ShardTable(photos, size=16),
        photos_per_batch=3,
        shuffle_photos=4,
        seed=1,
        skipped=Skipped(),
    )
    (photo_shards / "train-000001.tar").unlink()
    with pytest.raises(DataError, match="train-000001"):
        list(source.epoch(0))
