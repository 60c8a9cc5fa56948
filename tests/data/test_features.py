from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from capprune.data import features as module
from capprune.data.features import Features, cached_features, cached_pixels
from capprune.data.photos import PhotoStore, open_photos
from capprune_runtime.errors import CapPruneError, DataError, PhotoError
from capprune_runtime.photo import decode_photo, resize

SHARD = 8  # instead of 512, so that a few photos fill several


class MeansOfStripes:
    """A stand-in for a network, in NumPy: the mean colour of four stripes of a photo."""

    size = 16
    shape = (4, 3)

    def __init__(self, key: str = "stripes-1", *, fail_after: int | None = None) -> None:
        self.key = key
        self.photos = 0
        self.largest_batch = 0
        self.fail_after = fail_after

    def __call__(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        assert photos.dtype == np.uint8
        assert photos.shape[1:] == (self.size, self.size, 3)
        if self.fail_after is not None and self.photos >= self.fail_after:
            raise KeyboardInterrupt
        self.photos += len(photos)
        self.largest_batch = max(self.largest_batch, len(photos))
        means: npt.NDArray[np.float32] = photos.reshape(len(photos), 4, -1, 3).mean(2, dtype=np.float32)
        return means


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", SHARD)


@pytest.fixture
def photos(tmp_path: Path) -> Iterator[PhotoStore]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        noise = np.random.default_rng(number).integers(0, 256, (24, 20, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02}.png")
    with open_photos(folder) as store:
        yield store


def expected(photos: PhotoStore, names: tuple[str, ...]) -> npt.NDArray[np.float16]:
    squares = np.stack([resize(decode_photo(photos.read(name), name), MeansOfStripes.size) for name in names])
    return MeansOfStripes()(squares).astype(np.float16)


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/features-*.npy"))


def test_features_are_those_of_the_encoder_in_the_order_of_the_names(photos: PhotoStore, tmp_path: Path) -> None:
    names = photos.names()[::-1]
    encoder = MeansOfStripes()
    features = cached_features(photos, names, encoder=encoder, cache=tmp_path / "cache", batch=3)
    assert len(features) == 20
    assert features.shape == (20, 4, 3)
    chosen = np.array([19, 0, 7, 8, 8, 3])
    assert features[chosen].dtype == np.float16
    assert (features[chosen] == expected(photos, names)[chosen]).all()
    assert features[[]].shape == (0, 4, 3)
    assert encoder.largest_batch == 3


@pytest.mark.parametrize("index", [-1, 20])
def test_photo_that_does_not_exist_is_an_index_error(photos: PhotoStore, tmp_path: Path, index: int) -> None:
    features = cached_features(photos, photos.names(), encoder=MeansOfStripes(), cache=tmp_path / "cache")
    with pytest.raises(IndexError):
        features[[index]]


def test_second_start_computes_nothing(photos: PhotoStore, tmp_path: Path) -> None:
    first = cached_features(photos, photos.names(), encoder=MeansOfStripes(), cache=tmp_path / "cache")
    encoder, seen = MeansOfStripes(), []
    again = cached_features(
        photos, photos.names(), encoder=encoder, cache=tmp_path / "cache", progress=lambda *at: seen.append(at)
    )
    assert encoder.photos == 0
    assert (first.from_cache, again.from_cache) == (0, 20)
    assert (again[range(20)] == first[range(20)]).all()
    assert seen == [(8, 20), (16, 20), (20, 20)]


def test_interrupted_start_leaves_whole_shards_and_the_next_computes_the_rest(
    photos: PhotoStore, tmp_path: Path
) -> None:
    cache, names = tmp_path / "cache", photos.names()
    with pytest.raises(KeyboardInterrupt):
        cached_features(photos, names, encoder=MeansOfStripes(fail_after=12), cache=cache, batch=4)
    assert [path.name for path in shards(cache)] == ["features-00000.npy"]
    assert not list(cache.rglob("*.partial"))
    encoder = MeansOfStripes()
    features = cached_features(photos, names, encoder=encoder, cache=cache, batch=4)
    assert encoder.photos == 12
    assert (features[range(20)] == expected(photos, names)).all()


class MeetingStripes(MeansOfStripes):
    """Waits in its first call until the other one is called too."""

    def __init__(self, both: threading.Barrier) -> None:
        super().__init__()
        self._both = both

    def __call__(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if self.photos == 0:
            self._both.wait(60)
        return super().__call__(photos)


def test_two_that_want_the_same_features_share_them_out(photos: PhotoStore, tmp_path: Path) -> None:
    both = threading.Barrier(2)
    encoders = [MeetingStripes(both), MeetingStripes(both)]
    with ThreadPoolExecutor(2) as pool:
        found = list(
            pool.map(
                lambda one: cached_features(photos, photos.names(), encoder=one, cache=tmp_path / "cache", batch=4),
                encoders,
            )
        )
    assert sum(one.photos for one in encoders) == 20
    assert min(one.photos for one in encoders) >= 4
    assert all((one[range(20)] == expected(photos, photos.names())).all() for one in found)


def test_progress_counts_photos(photos: PhotoStore, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cached_features(
        photos,
        photos.names(),
        encoder=MeansOfStripes(),
        cache=tmp_path / "cache",
        batch=4,
        progress=lambda *at: seen.append(at),
    )
    assert seen == [(4, 20), (8, 20), (12, 20), (16, 20), (20, 20)]


def test_other_encoder_other_photos_or_other_order_is_another_cache(photos: PhotoStore, tmp_path: Path) -> None:
    cache, names = tmp_path / "cache", photos.names()
    for encoder, some in (
        (MeansOfStripes(), names),
        (MeansOfStripes("stripes-2"), names),
        (MeansOfStripes(), names[:5]),
        (MeansOfStripes(), names[::-1]),
    ):
        cached_features(photos, some, encoder=encoder, cache=cache)
        assert encoder.photos == len(some)
    (photos.folder / "00.png").write_bytes((photos.folder / "01.png").read_bytes() + b"\0")
    with open_photos(photos.folder) as changed:
        encoder = MeansOfStripes()
        cached_features(changed, names, encoder=encoder, cache=cache)
        assert encoder.photos == 20
    assert len(list(cache.iterdir())) == 5


def test_photo_of_the_same_size_in_anothers_place_is_another_cache(photos: PhotoStore, tmp_path: Path) -> None:
    cache, names = tmp_path / "cache", photos.names()
    for number, size in enumerate(((24, 20), (24, 20))):
        noise = np.random.default_rng(100 + number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.bmp")
    first, second = ((tmp_path / f"{number}.bmp").read_bytes() for number in range(2))
    assert len(first) == len(second) and first != second
    (photos.folder / "00.png").write_bytes(first)
    os.utime(photos.folder / "00.png", ns=(1, 1))
    with open_photos(photos.folder) as store:
        before = cached_features(store, names, encoder=MeansOfStripes(), cache=cache)
    (photos.folder / "00.png").write_bytes(second)
    with open_photos(photos.folder) as store:
        after = cached_features(store, names, encoder=MeansOfStripes(), cache=cache)
        assert after.from_cache == 0
        assert (after[range(20)] == expected(store, names)).all()
    assert (before[[0]] != after[[0]]).any()


def test_index_says_what_the_folder_holds(photos: PhotoStore, tmp_path: Path) -> None:
    cached_features(photos, photos.names(), encoder=MeansOfStripes(), cache=tmp_path / "cache")
    (index,) = (tmp_path / "cache").glob("*/index.json")
    content = json.loads(index.read_text())
    assert content["encoder"] == "stripes-1"
    assert content["names"] == list(photos.names())
    assert content["shape"] == [20, 4, 3]


@pytest.mark.parametrize("damage", ["cut off", "emptied", "no array", "another shape", "another type", "removed"])
def test_damaged_shard_is_computed_again(photos: PhotoStore, tmp_path: Path, damage: str) -> None:
    cache, names = tmp_path / "cache", photos.names()
    cached_features(photos, names, encoder=MeansOfStripes(), cache=cache)
    victim = shards(cache)[1]
    content = victim.read_bytes()
    if damage in ("another shape", "another type"):
        file = io.BytesIO()
        np.save(file, np.zeros((3, 4, 3), np.float16) if damage == "another shape" else np.zeros((8, 4, 3), np.int16))
        content = file.getvalue()
    victim.write_bytes({"cut off": content[:-1], "emptied": b"", "no array": b"x" * len(content)}.get(damage, content))
    if damage == "removed":
        victim.unlink()
    encoder = MeansOfStripes()
    features = cached_features(photos, names, encoder=encoder, cache=cache)
    assert encoder.photos == SHARD
    assert (features[range(20)] == expected(photos, names)).all()


def test_full_disk_names_path_and_bytes_and_leaves_nothing_half_written(
    photos: PhotoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, names = tmp_path / "cache", photos.names()
    cached_features(photos, names, encoder=MeansOfStripes(), cache=cache)
    victim = shards(cache)[2]
    size_bytes = victim.stat().st_size
    victim.unlink()

    def flush_a_full_disk(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", flush_a_full_disk)
    with pytest.raises(CapPruneError, match=rf"(?s)disk is full: {victim}.*{size_bytes} bytes free") as raised:
        cached_features(photos, names, encoder=MeansOfStripes(), cache=cache)
    assert raised.value.exit_code == 1
    assert len(shards(cache)) == 2
    assert not list(cache.rglob("*.partial"))
    monkeypatch.undo()
    monkeypatch.setattr(module, "SHARD", SHARD)
    encoder = MeansOfStripes()
    cached_features(photos, names, encoder=encoder, cache=cache)
    assert encoder.photos == 4


def test_cache_that_cannot_be_made_is_an_error_with_its_path(photos: PhotoStore, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CapPruneError, match=r"(?s)cannot be written to: .*cache.*--cache FOLDER"):
        cached_features(photos, photos.names(), encoder=MeansOfStripes(), cache=tmp_path / "cache")


def test_missing_photo_is_found_before_anything_is_computed(photos: PhotoStore, tmp_path: Path) -> None:
    encoder = MeansOfStripes()
    with pytest.raises(DataError, match="do not exist"):
        cached_features(photos, [*photos.names(), "99.png"], encoder=encoder, cache=tmp_path / "cache")
    assert encoder.photos == 0
    assert not (tmp_path / "cache").exists()


def test_truncated_photo_is_named_and_the_shards_before_it_are_kept(photos: PhotoStore, tmp_path: Path) -> None:
    victim = photos.folder / "13.png"
    victim.write_bytes(victim.read_bytes()[:600])
    with pytest.raises(PhotoError, match=r"(?s)13\.png.*capprune data check"):
        cached_features(photos, photos.names(), encoder=MeansOfStripes(), cache=tmp_path / "cache", batch=4)
    assert len(shards(tmp_path / "cache")) == 1


@pytest.mark.parametrize("number", [np.nan, np.inf, 70_000.0])
def test_features_beyond_float16_are_refused(photos: PhotoStore, tmp_path: Path, number: float) -> None:
    class Wild(MeansOfStripes):
        def __call__(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            features = super().__call__(photos)
            features[-1, -1, -1] = number
            return features

    with pytest.raises(CapPruneError, match="float16"):
        cached_features(photos, photos.names(), encoder=Wild(), cache=tmp_path / "cache")
    assert shards(tmp_path / "cache") == []


def test_reading_maps_the_shards_instead_of_loading_them(photos: PhotoStore, tmp_path: Path) -> None:
    features = cached_features(photos, photos.names(), encoder=MeansOfStripes(), cache=tmp_path / "cache")
    assert isinstance(features, Features)
    assert all(isinstance(shard, np.memmap) for shard in features._shards)


def test_pixels_are_those_that_an_encoder_takes_and_are_decoded_once(photos: PhotoStore, tmp_path: Path) -> None:
    names, seen = photos.names()[::-1], []
    pixels = cached_pixels(photos, names, size=16, cache=tmp_path / "cache")
    assert pixels.shape == (20, 16, 16, 3)
    expected = np.stack([resize(decode_photo(photos.read(name), name), 16) for name in names])
    found = pixels[range(20)]
    assert found.dtype == np.uint8
    assert (found == expected).all()
    assert all(isinstance(shard, np.memmap) for shard in pixels._shards)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*/pixels-*.npy")}
    assert len(written) == 3
    again = cached_pixels(photos, names, size=16, cache=tmp_path / "cache", progress=lambda *at: seen.append(at))
    assert (again[range(20)] == found).all()
    assert seen == [(8, 20), (16, 20), (20, 20)]
    assert written == {path: path.stat().st_mtime_ns for path in written}
    cached_features(photos, names, encoder=MeansOfStripes(), cache=tmp_path / "cache")
    cached_pixels(photos, names, size=24, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 3


def _fill(folder: Path, cache: Path, counts: multiprocessing.queues.Queue[int]) -> None:
    module.SHARD = SHARD  # type: ignore[misc]
    encoder = MeansOfStripes()
    with open_photos(folder) as photos:
        cached_features(photos, photos.names(), encoder=encoder, cache=cache)
    counts.put(encoder.photos)


def test_two_processes_share_a_cache_and_compute_each_photo_once(photos: PhotoStore, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    counts = context.Queue()
    processes = [context.Process(target=_fill, args=(photos.folder, tmp_path / "cache", counts)) for _ in range(2)]
    for process in processes:
        process.start()
    computed = [counts.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sum(computed) == 20  # either may have computed all
