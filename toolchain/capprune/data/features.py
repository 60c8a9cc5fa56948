"""What training reads of photos, made once and kept on disk: features, or pixels for an encoder that learns.

    cache/<hash>/index.json             what the hash stands for: encoder, preprocessing, and each photo's path, size and
                                        time of change
    cache/<hash>/features-00000.npy     float16 (at most 512, R, F), photos 0 to 511 in the order asked for
    cache/<hash>/pixels-00000.npy       uint8 (at most 512, S, S, 3), decoded and squashed, in a folder of their own

A frozen encoder sees each photo once, however many epochs, runs and pruning targets follow; one that learns sees it
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from capprune.file_lock import locked
from capprune_runtime.atomic import write_bytes
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


class Photos(Protocol):
    """Where photos are read by name, as from `PhotoStore`."""

    @property
    def folder(self) -> Path:
        """What messages call the data."""

    def require(self, names: Sequence[str], /) -> None:
        """Check that every photo is there."""

    def fingerprint(self, names: Sequence[str], /) -> str:
        """What changes when a photo does."""

    def read(self, name: str, /) -> bytes:
        """The bytes of a photo."""


class Features:
    """Features, or pixels, of N photos on disk, mapped into memory as they are asked for.

    Attributes:
        shape: (N, R, F), (N, H, W, C) or (N, S, S, 3).
        from_cache: Photos whose values were there already, computed by an earlier command.
        broken: Photos that cannot be read, by their position, with the reasons; their values are zeros.
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
    photos: Photos,
    names: Sequence[str],
    *,
    encoder: FeatureEncoder,
    cache: Path,
    batch: int = 16,
    progress: Progress | None = None,
    skip_broken: bool = False,
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
        skip_broken: Whether photos that cannot be read are zeros, and named in `Features.broken`, instead of an error.

    Returns:
        The features in the order of the names.

    Raises:
        DataError: A photo is not there or cannot be decoded.
        CapPruneError: The disk is full, or the features do not fit float16.
    """
    content = _Content("features", encoder.key, encoder.size, encoder.shape, np.float16, lambda p: half(encoder(p)))
    return _cached(photos, names, content, cache, _How(batch, progress, skip_broken))


def cached_pixels(
    photos: Photos,
    names: Sequence[str],
    *,
    size: int,
    cache: Path,
    progress: Progress | None = None,
    skip_broken: bool = False,
) -> Features:
    """Pixels of photos as an encoder takes them, uint8 (N, S, S, 3), from the cache or decoded into it.

    Args:
        photos: Where to read them.
        names: Which ones, in which order.
        size: S, the side of the squashed photo.
        cache: Folder of all caches; made if it is not there.
        progress: Called with the photos done and all of them.
        skip_broken: See `cached_features`.

    Raises:
        DataError: A photo is not there or cannot be decoded.
        CapPruneError: The disk is full.
    """
    content = _Content("pixels", "pixels", size, (size, size, 3), np.uint8, lambda pixels: pixels)
    return _cached(photos, names, content, cache, _How(DECODED_TOGETHER, progress, skip_broken))


@dataclass(frozen=True)
class _Content:
    """What a cache holds of a photo, and how it is made of the photo's pixels."""

    name: str
    key: str
    size: int
    shape: tuple[int, ...]
    dtype: type[np.generic]
    make: Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]


@dataclass(frozen=True)
class _How:
    """How a cache is filled."""

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
    folder: Path, photos: Photos, names: Sequence[str], content: _Content, how: _How
) -> tuple[list[Path], int, dict[int, str]]:
    """The files of a cache, those computed that were not there; how many photos were; and what could not be read.

    Processes that want the same features share the files out: each first takes those that nobody is at, then waits for the
    others.
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
    """Compute one file of a cache if it is not there; returns how many photos were."""
    shape = (len(some), *content.shape)
    tell = how.progress or (lambda done, total: None)
    if _is_whole(path, shape, content.dtype) and (how.skip_broken or not _broken_of(path)):
        tell(done + len(some), total)
        return len(some)
    made, faults = np.empty(shape, content.dtype), dict[int, str]()
    for start, pixels in _decoded(photos, some, content.size, how, faults):
        made[start : start + len(pixels)] = content.make(pixels)
        tell(done + start + len(pixels), total)
    made[list(faults)] = 0
    _write_broken(path, faults)
    _write_shard(path, made)
    return 0


def _decoded(
    photos: Photos, names: Sequence[str], size: int, how: _How, faults: dict[int, str]
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Batches of decoded photos with the number of the first, a few batches ahead of who asks.

    A photo that cannot be read is black, and noted in `faults`, where it does not stop the command.
    """

    def decode(place: int) -> npt.NDArray[np.uint8]:
        try:
            return resize(decode_photo(photos.read(names[place]), names[place]), size)
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
    """The photos of a file of the cache that could not be read, with the reasons."""
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
    """Round features to float16, as caches and shards hold them.

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
def _alone_at(lock: Path, busy: UsageError | None = None) -> Iterator[None]:
    """Wait until no other process holds a lock, or raise `busy`; the lock ends with the process, however it ends."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(lock, busy=busy))
        except UsageError as unwritable:
            if unwritable is not busy:
                unwritable.hint = "choose another place with --cache FOLDER, or set CAPPRUNE_CACHE"
            raise
        yield
