"""Features of photos for training, computed once and cached on disk; pixels for a trained encoder.

    cache/<hash>/index.json             what the hash is computed from: encoder, preprocessing, and each photo's path,
    size
                                        and modification time
    cache/<hash>/features-00000.npy     float16 (at most 512, R, F), photos 0 to 511 in the requested order
    cache/<hash>/pixels-00000.npy       uint8 (at most 512, S, S, 3), decoded and squashed, in a separate folder

A frozen encoder processes each photo once for all epochs, runs and pruning targets. A trained encoder processes it
every epoch, but the photo is decoded once.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from capprune.data.views import WHOLE, View
from capprune.file_lock import locked
from capprune_runtime.atomic import write_bytes
from capprune_runtime.errors import CapPruneError, PhotoError, UsageError
from capprune_runtime.photo import decode_photo, resize

SHARD: Final = 512  # photos per file: the most that an interruption can cost; 64 MB of 7×7×1280 features
PREPROCESSING: Final = "squash-triangle-q15"  # the resize of capprune_runtime.photo; part of the cache key
DECODERS: Final = min(4, os.cpu_count() or 1)  # threads; Pillow and NumPy release the global interpreter lock
DECODED_TOGETHER: Final = 16  # photos per batch, if no encoder requires another number
READ_AHEAD: Final = 3  # batches decoded in advance of the encoder

Progress = Callable[[int, int], None]


class FeatureEncoder(Protocol):
    """A frozen network, or the first blocks of one, that computes features of photos."""

    @property
    def key(self) -> str:
        """Key that differs between encoders with different features: weights, size, grid."""

    @property
    def size(self) -> int:
        """Side of the input photos in pixels."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(R, F), regions and features of each; (H, W, C) for the output of blocks."""

    def __call__(self, photos: npt.NDArray[np.uint8], /) -> npt.NDArray[np.float32]:
        """Return the features (B, *shape) of photos (B, size, size, 3), which are not yet normalised."""


class Photos(Protocol):
    """Photos that are read by name, such as `PhotoStore`."""

    @property
    def folder(self) -> Path:
        """Name of the data for messages."""

    def require(self, names: Sequence[str], /) -> None:
        """Check that every photo exists."""

    def fingerprint(self, names: Sequence[str], /) -> str:
        """Return a hash that changes when a photo changes."""

    def read(self, name: str, /) -> bytes:
        """Return the bytes of a photo."""


class Features:
    """Features or pixels of N photos on disk, memory-mapped on access.

    Attributes:
        shape: (N, R, F), (N, H, W, C) or (N, S, S, 3).
        from_cache: Number of photos with values from an earlier command.
        broken: Photos that cannot be read, by position, with the reasons; their values are zeros.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        shape: tuple[int, ...],
        dtype: type[np.generic] = np.float16,
        from_cache: int = 0,
        broken: Mapping[int, str] | None = None,
    ) -> None:
        self.shape, self.from_cache, self._dtype = shape, from_cache, dtype
        self.broken = dict(broken or {})
        self._shards = [np.load(path, mmap_mode="r", allow_pickle=False) for path in shards]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the features of some photos.

        Args:
            indices: (B,) positions in the requested names.

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
    photos: Photos,
    names: Sequence[str],
    *,
    encoder: FeatureEncoder,
    cache: Path,
    batch: int = 16,
    progress: Progress | None = None,
    skip_broken: bool = False,
    view: View = WHOLE,
) -> Features:
    """Return features of photos, from the cache or computed into it.

    After an interruption, only the missing shards are computed. If two processes need the same features, each shard is
    computed by one of them and the other waits.

    Args:
        photos: The photos.
        names: Names of the photos, in the order of the features.
        encoder: The network; called with at most `batch` photos at a time.
        cache: Folder of all caches; made if missing.
        batch: Photos per call.
        progress: Called with the number of finished photos and of all photos.
        skip_broken: Whether unreadable photos become zeros that are listed in `Features.broken`, instead of an error.
        view: The part of every photo that is seen, and whether it is mirrored.

    Returns:
        The features in the order of the names.

    Raises:
        DataError: A photo is missing or cannot be decoded.
        CapPruneError: The disk is full, or the features do not fit float16.
    """
    content = _Content("features", encoder.key, encoder.size, encoder.shape, np.float16, lambda p: half(encoder(p)))
    return _cached(photos, names, content.seen(view), cache, _How(batch, progress, skip_broken))


def cached_pixels(
    photos: Photos,
    names: Sequence[str],
    *,
    size: int,
    cache: Path,
    progress: Progress | None = None,
    skip_broken: bool = False,
    view: View = WHOLE,
) -> Features:
    """Return pixels of photos for an encoder, uint8 (N, S, S, 3), from the cache or decoded into it.

    Args:
        photos: The photos.
        names: Names of the photos, in the order of the pixels.
        size: S, the side of the squashed photo.
        cache: Folder of all caches; made if missing.
        progress: Called with the number of finished photos and of all photos.
        skip_broken: See `cached_features`.
        view: See `cached_features`.

    Raises:
        DataError: A photo is missing or cannot be decoded.
        CapPruneError: The disk is full.
    """
    content = _Content("pixels", "pixels", size, (size, size, 3), np.uint8, lambda pixels: pixels)
    how = _How(DECODED_TOGETHER, progress, skip_broken)
    return _cached(photos, names, content.seen(view), cache, how)


@dataclass(frozen=True)
class _Content:
    """Values that a cache holds of a photo, and how they are computed from its pixels."""

    name: str
    key: str
    size: int
    shape: tuple[int, ...]
    dtype: type[np.generic]
    make: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]
    view: View = WHOLE

    def seen(self, view: View) -> _Content:
        """Return the same for a view of the photos."""
        if view.whole:
            return self
        return replace(
            self, key=f"{self.key} {view.label}", make=lambda pixels: self.make(view.turned(pixels)), view=view
        )


@dataclass(frozen=True)
class _How:
    """Options for filling a cache."""

    batch: int
    progress: Progress | None
    skip_broken: bool


def _cached(photos: Photos, names: Sequence[str], content: _Content, cache: Path, how: _How) -> Features:
    photos.require(names)
    index = _index(photos, names, content)
    folder = cache / hashlib.sha256(index).hexdigest()[:24]
    with _alone_at(folder / "lock"):
        _write_index(folder / "index.json", index)
    shards, there, broken = _fill(folder, photos, names, content, how)
    return Features(shards, (len(names), *content.shape), content.dtype, there, broken)


def _index(photos: Photos, names: Sequence[str], content: _Content) -> bytes:
    """Return everything that the content of a cache depends on; its hash names the cache."""
    identity = {
        "encoder": content.key,
        "preprocessing": f"{PREPROCESSING} {content.size}",
        "shape": [len(names), *content.shape],
        "photos": photos.fingerprint(names),
        "names": list(names),
    }
    return json.dumps(identity, indent=1).encode()


def _fill(
    folder: Path, photos: Photos, names: Sequence[str], content: _Content, how: _How
) -> tuple[list[Path], int, dict[int, str]]:
    """Return the files of a cache after computing missing ones, the number of cached photos, and the unreadable photos.

    Processes that need the same features share the work. Each first computes the files that are not locked, then waits
    for the others.
    """
    firsts = range(0, len(names), SHARD)
    paths = [folder / f"{content.name}-{first // SHARD:05}.npy" for first in firsts]
    left, done, there, broken = list(zip(firsts, paths, strict=True)), 0, 0, dict[int, str]()
    for busy in (UsageError("another process computes these features"), None):
        waiting = []
        for first, path in left:
            some = names[first : first + SHARD]
            try:
                with _alone_at(path.with_suffix(".lock"), busy):
                    there += _fill_one(path, done, photos, some, len(names), content, how)
            except UsageError as error:
                if error is not busy:
                    raise
                waiting.append((first, path))
                continue
            done += len(some)
            broken |= {first + place: reason for place, reason in _broken_of(path).items()}
        left = waiting
    return paths, there, broken


def _fill_one(
    path: Path, done: int, photos: Photos, some: Sequence[str], total: int, content: _Content, how: _How
) -> int:
    """Compute one file of a cache if it is missing. Returns the number of its photos that were cached."""
    shape = (len(some), *content.shape)
    tell = how.progress or (lambda done, total: None)
    if _is_whole(path, shape, content.dtype) and (how.skip_broken or not _broken_of(path)):
        tell(done + len(some), total)
        return len(some)
    made, faults = np.empty(shape, content.dtype), dict[int, str]()
    for start, pixels in _decoded(photos, some, content, how, faults):
        made[start : start + len(pixels)] = content.make(pixels)
        tell(done + start + len(pixels), total)
    made[list(faults)] = 0
    _write_broken(path, faults)
    _write_shard(path, made)
    return 0


def _decoded(
    photos: Photos, names: Sequence[str], content: _Content, how: _How, faults: dict[int, str]
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield the index of the first photo and the pixels of each batch, decoded a few batches in advance.

    An unreadable photo is black and recorded in `faults`, if broken photos are skipped.
    """

    size = content.size

    def decode(place: int) -> npt.NDArray[np.uint8]:
        try:
            photo = decode_photo(photos.read(names[place]), names[place])
            return resize(content.view.cut(photo, names[place]), size)
        except PhotoError as error:
            if how.skip_broken:
                faults[place] = error.what
                return np.zeros((size, size, 3), np.uint8)
            error.hint = error.hint or (
                f"capprune data check {photos.folder} lists all photos that cannot be read; data.broken=skip trains "
                "without them"
            )
            raise

    batch = how.batch
    pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
    ahead: deque[Future[npt.NDArray[np.uint8]]] = deque()
    submitted = iter(range(len(names)))
    try:
        for start in range(0, len(names), batch):
            while len(ahead) < READ_AHEAD * batch and (place := next(submitted, None)) is not None:
                ahead.append(pool.submit(decode, place))
            yield start, np.stack([ahead.popleft().result() for _ in range(min(batch, len(names) - start))])
    finally:
        pool.shutdown(cancel_futures=True)


def _broken_of(path: Path) -> dict[int, str]:
    """Return the unreadable photos of a cache file, with the reasons."""
    try:
        return {int(place): str(reason) for place, reason in json.loads(_broken_path(path).read_bytes()).items()}
    except (OSError, ValueError, AttributeError):  # there is no such list
        return {}


def _write_broken(path: Path, faults: Mapping[int, str]) -> None:
    if faults:
        write_bytes(_broken_path(path), json.dumps(dict(sorted(faults.items()))).encode())
    else:
        _broken_path(path).unlink(missing_ok=True)


def _broken_path(path: Path) -> Path:
    return path.with_suffix(".broken.json")


def half(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Round features to float16, the type of caches and shards.

    Raises:
        CapPruneError: They do not fit.
    """
    largest = np.abs(features).max()
    if not largest <= np.finfo(np.float16).max:  # not ">", so that NaN fails too
        raise CapPruneError("features that do not fit float16", expected="numbers up to 65,504", found=f"{largest}")
    return features.astype(np.float16)


def _write_index(path: Path, index: bytes) -> None:
    if not path.exists() or path.read_bytes() != index:
        write_bytes(path, index)


def _write_shard(path: Path, features: npt.NDArray[Any]) -> None:
    content = io.BytesIO()  # np.save to a file on a full disk does not report the error
    np.save(content, features)
    write_bytes(path, content.getbuffer())


def _is_whole(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> bool:
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing, truncated, or not an array
        return False
    return bool(shard.shape == shape and shard.dtype == dtype)


@contextmanager
def _alone_at(lock: Path, busy: UsageError | None = None) -> Iterator[None]:
    """Wait until no other process holds a lock, or raise `busy`. The lock is always released when its process ends."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(lock, busy=busy))
        except UsageError as unwritable:
            if unwritable is not busy:
                unwritable.hint = "choose another place with --cache FOLDER, or set CAPPRUNE_CACHE"
            raise
        yield
