"""What training reads of photos, made once and kept on disk: features, or pixels for an encoder that learns.

    cache/<hash>/index.json             what the hash stands for: encoder, preprocessing, and each photo's path, size and
                                        time of change
    cache/<hash>/features-00000.npy     float16 (at most 512, R, F), photos 0 to 511 in the order asked for
    cache/<hash>/pixels-00000.npy       uint8 (at most 512, S, S, 3), decoded and squashed, in a folder of their own

A frozen encoder sees each photo once, however many epochs, runs and pruning targets follow; one that learns sees it
every epoch, but the photo is decoded once.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from capprune.data.photos import PhotoStore
from capprune_runtime.atomic import raise_if_unwritable, write_bytes
from capprune_runtime.errors import CapPruneError, PhotoError, UsageError
from capprune_runtime.photo import decode_photo, resize

SHARD: Final = 512  # photos a file: what an interruption can cost, and 64 MB of 7×7×1280 features
PREPROCESSING: Final = "squash-triangle-q15"  # the resize of capprune_runtime.photo; another one, other features
DECODERS: Final = min(4, os.cpu_count() or 1)  # threads; Pillow and NumPy let go of the interpreter's lock
DECODED_TOGETHER: Final = 16  # photos, where no encoder asks for another number
READ_AHEAD: Final = 3  # batches decoded before the encoder asks for them

Progress = Callable[[int, int], None]


class FeatureEncoder(Protocol):
    """A frozen network, or the first blocks of one, that turns photos into features."""

    @property
    def key(self) -> str:
        """Tells apart encoders whose features differ: weights, size, grid."""

    @property
    def size(self) -> int:
        """Side of the photos it takes, in pixels."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(R, F), regions and features of each; (H, W, C) of blocks."""

    def __call__(self, photos: npt.NDArray[np.uint8], /) -> npt.NDArray[np.float32]:
        """Features (B, *shape) of photos (B, size, size, 3), which are not yet normalised."""


class Features:
    """Features, or pixels, of N photos on disk, mapped into memory as they are asked for.

    Attributes:
        shape: (N, R, F), (N, H, W, C) or (N, S, S, 3).
        from_cache: Photos whose values were there already, computed by an earlier command.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        shape: tuple[int, ...],
        dtype: type[np.generic] = np.float16,
        from_cache: int = 0,
    ) -> None:
        self.shape, self.from_cache, self._dtype = shape, from_cache, dtype
        self._shards = [np.load(path, mmap_mode="r", allow_pickle=False) for path in shards]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Features of some photos.

        Args:
            indices: (B,) positions in the names asked for.

        Returns:
            float16 (B, R, F) or (B, H, W, C), or uint8 (B, S, S, 3), a copy.

        Raises:
            IndexError: There is no such photo.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"photo {chosen.min()} or {chosen.max()} of {len(self)}")
        features = np.empty((len(chosen), *self.shape[1:]), self._dtype)
        shards, rows = np.divmod(chosen, SHARD)
        for shard in np.unique(shards):
            here = shards == shard
            features[here] = self._shards[shard][rows[here]]
        return features


def cached_features(
    photos: PhotoStore,
    names: Sequence[str],
    *,
    encoder: FeatureEncoder,
    cache: Path,
    batch: int = 16,
    progress: Progress | None = None,
) -> Features:
    """Features of photos, from the cache or computed into it.

    A second start after an interruption computes the missing shards only. Two processes that want the same
    features compute them once: the second waits for the first.

    Args:
        photos: Where to read them.
        names: Which ones, in which order.
        encoder: The network; called with at most `batch` photos at a time.
        cache: Folder of all caches; made if it is not there.
        batch: Photos a call.
        progress: Called with the photos done and all of them.

    Returns:
        The features in the order of the names.

    Raises:
        DataError: A photo is not there or cannot be decoded.
        CapPruneError: The disk is full, or the features do not fit float16.
    """
    content = _Content("features", encoder.key, encoder.size, encoder.shape, np.float16, lambda p: _half(encoder(p)))
    return _cached(photos, names, content, cache, batch, progress)


def cached_pixels(
    photos: PhotoStore, names: Sequence[str], *, size: int, cache: Path, progress: Progress | None = None
) -> Features:
    """Pixels of photos as an encoder takes them, uint8 (N, S, S, 3), from the cache or decoded into it.

    Args:
        photos: Where to read them.
        names: Which ones, in which order.
        size: S, the side of the squashed photo.
        cache: Folder of all caches; made if it is not there.
        progress: Called with the photos done and all of them.

    Raises:
        DataError: A photo is not there or cannot be decoded.
        CapPruneError: The disk is full.
    """
    content = _Content("pixels", "pixels", size, (size, size, 3), np.uint8, lambda pixels: pixels)
    return _cached(photos, names, content, cache, DECODED_TOGETHER, progress)


@dataclass(frozen=True)
class _Content:
    """What a cache holds of a photo, and how it is made of the photo's pixels."""

    name: str
    key: str
    size: int
    shape: tuple[int, ...]
    dtype: type[np.generic]
    make: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]


def _cached(
    photos: PhotoStore, names: Sequence[str], content: _Content, cache: Path, batch: int, progress: Progress | None
) -> Features:
    photos.require(names)
    index = _index(photos, names, content)
    folder = cache / hashlib.sha256(index).hexdigest()[:24]
    with _alone_in(folder):
        _write_index(folder / "index.json", index)
        shards, there = _fill(folder, photos, names, content, batch, progress)
    return Features(shards, (len(names), *content.shape), content.dtype, there)


def _index(photos: PhotoStore, names: Sequence[str], content: _Content) -> bytes:
    """What a cache is known by: whatever its contents depend on."""
    identity = {
        "encoder": content.key,
        "preprocessing": f"{PREPROCESSING} {content.size}",
        "shape": [len(names), *content.shape],
        "photos": photos.fingerprint(names),
        "names": list(names),
    }
    return json.dumps(identity, indent=1).encode()


def _fill(
    folder: Path,
    photos: PhotoStore,
    names: Sequence[str],
    content: _Content,
    batch: int,
    progress: Progress | None,
) -> tuple[list[Path], int]:
    """The files of a cache, those computed that were not there; and how many photos were."""
    paths, there = [], 0
    for first in range(0, len(names), SHARD):
        some = names[first : first + SHARD]
        path = folder / f"{content.name}-{first // SHARD:05}.npy"
        paths.append(path)
        shape = (len(some), *content.shape)
        if not _is_whole(path, shape, content.dtype):
            made = np.empty(shape, content.dtype)
            for start, pixels in _decoded(photos, some, content.size, batch):
                made[start : start + len(pixels)] = content.make(pixels)
                if progress is not None:
                    progress(first + start + len(pixels), len(names))
            _write_shard(path, made)
            continue
        there += len(some)
        if progress is not None:
            progress(first + len(some), len(names))
    return paths, there


def _decoded(
    photos: PhotoStore, names: Sequence[str], size: int, batch: int
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Batches of decoded photos with the number of the first, a few batches ahead of who asks."""

    def decode(name: str) -> npt.NDArray[np.uint8]:
        try:
            return resize(decode_photo(photos.read(name), name), size)
        except PhotoError as error:
            error.hint = error.hint or f"capprune data check {photos.folder} lists all photos that cannot be read"
            raise

    pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
    ahead: deque[Future[npt.NDArray[np.uint8]]] = deque()
    submitted = iter(names)
    try:
        for start in range(0, len(names), batch):
            while len(ahead) < READ_AHEAD * batch and (name := next(submitted, None)) is not None:
                ahead.append(pool.submit(decode, name))
            yield start, np.stack([ahead.popleft().result() for _ in range(min(batch, len(names) - start))])
    finally:
        pool.shutdown(cancel_futures=True)


def _half(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    largest = np.abs(features).max()
    if not largest <= np.finfo(np.float16).max:  # not ">", so that NaN fails too
        raise CapPruneError("features that do not fit float16", expected="numbers up to 65,504", found=f"{largest}")
    return features.astype(np.float16)


def _write_index(path: Path, index: bytes) -> None:
    if not path.exists() or path.read_bytes() != index:
        write_bytes(path, index)


def _write_shard(path: Path, features: npt.NDArray[Any]) -> None:
    content = io.BytesIO()  # np.save straight to a file on a full disk does not say that it is full
    np.save(content, features)
    write_bytes(path, content.getbuffer())


def _is_whole(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> bool:
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, cut off, or not an array
        return False
    return bool(shard.shape == shape and shard.dtype == dtype)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process fills this cache; the lock ends with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        nowhere = isinstance(error, FileNotFoundError)  # a parent that takes no folders, such as /proc
        try:
            raise_if_unwritable(PermissionError(errno.EACCES, error.strerror) if nowhere else error, folder)
        except UsageError as unwritable:
            unwritable.hint = "choose another place with --cache FOLDER, or set CAPPRUNE_CACHE"
            raise
        raise
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
