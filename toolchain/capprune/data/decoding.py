"""Decodes every photo of a data set once, to find unreadable photos and to compute a fingerprint of each.

    cache/checks/<hash>.json    results for the photos of one data folder, by path, size and modification time

Photos that have not changed since the last check are not decoded again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from capprune.data.photos import PhotoPlace, PhotoStore
from capprune_runtime.atomic import write_text
from capprune_runtime.errors import CapPruneError, PhotoError, UsageError
from capprune_runtime.photo import decode_photo

VERSION: Final = 1  # of the cache; changes with the fingerprint
THUMB: Final = 8  # side of the thumbnail that confirms a near duplicate
ALONE: Final = 48  # photos that one process decodes faster than others would start
CHUNK: Final = 16  # photos per task

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Look:
    """Result of decoding one photo.

    Attributes:
        sha256: Hash of the file's bytes; empty if they cannot be read.
        dhash: 64 bits, each whether a pixel of a 9x8 grey image is darker than its right neighbour.
        thumb: An 8x8 RGB image, 192 bytes; empty if the photo cannot be decoded.
        error: Why the photo cannot be used; None if it can.
    """

    sha256: str
    dhash: int
    thumb: bytes
    error: str | None = None


@dataclass(frozen=True)
class Looks:
    """Results of decoding many photos.

    Attributes:
        by_name: The result of each photo, in the order of the names.
        from_cache: Number of photos that were decoded before and have not changed since.
        not_kept: The cache file that could not be written; None if it was written or there was nothing new.
    """

    by_name: dict[str, Look]
    from_cache: int
    not_kept: Path | None = None


def look_at(place: PhotoPlace) -> Look:
    """Read and decode one photo as training does."""
    try:
        content = place.read()
    except OSError as error:
        return Look("", 0, b"", f"cannot be read: {error.strerror}")
    if len(content) != place.size_bytes:
        return Look("", 0, b"", "has changed while it was read")
    digest = hashlib.sha256(content).hexdigest()
    try:
        rgb = decode_photo(content, place.path)
    except PhotoError as error:
        return Look(digest, 0, b"", error.what if error.found is None else f"{error.what}: {error.found}")
    return Look(digest, *fingerprint(rgb))


def fingerprint(rgb: npt.NDArray[np.uint8]) -> tuple[int, bytes]:
    """Return the difference hash and the thumbnail of a photo (H, W, 3)."""
    photo = Image.fromarray(rgb)
    grey = np.asarray(photo.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(grey[:, :-1] < grey[:, 1:])
    thumb = photo.resize((THUMB, THUMB), Image.Resampling.BOX)
    return int.from_bytes(bits.tobytes(), "big"), thumb.tobytes()


def look_at_all(store: PhotoStore, names: Sequence[str], *, cache: Path, progress: Progress | None = None) -> Looks:
    """Decode photos on all processors.

    Args:
        store: The photos.
        names: Names of the photos; all must exist.
        cache: Folder of all caches.
        progress: Called with the number of finished photos and of all photos.

    Raises:
        CapPruneError: A decoding process was killed.
    """
    path = cache / "checks" / f"{hashlib.sha256(os.fsencode(store.folder.resolve())).hexdigest()[:24]}.json"
    known = _read_cache(path)
    places = {name: store.place(name) for name in names}
    keys = {name: _key(place) for name, place in places.items()}
    looks = {name: known[keys[name]] for name in names if keys[name] in known}
    before = len(looks)
    open_names = [name for name in places if name not in looks]
    try:
        for name, look in zip(open_names, _looks([places[name] for name in open_names]), strict=True):
            looks[name] = look
            if progress is not None:
                progress(len(looks), len(places))
    finally:
        kept = len(looks) == before or _write_cache(path, {keys[name]: look for name, look in looks.items()})
    return Looks({name: looks[name] for name in places}, before, None if kept else path)


def _looks(places: Sequence[PhotoPlace]) -> Iterator[Look]:
    processes = min(os.cpu_count() or 1, len(places) // CHUNK)
    if len(places) <= ALONE or processes < 2:
        yield from map(look_at, places)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_signals_to_the_parent)
    try:
        yield from pool.map(look_at, places, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise CapPruneError(
            "a process that decoded photos was killed",
            hint="the machine may be short of memory; the same command resumes",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _key(place: PhotoPlace) -> str:
    return hashlib.sha256(place.identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _read_cache(path: Path) -> Mapping[str, Look]:
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            return {}
        return {key: _from_json(entry) for key, entry in content["photos"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing, truncated, or another program's file
        return {}


def _from_json(entry: Sequence[Any]) -> Look:
    digest, dhash, thumb, error = entry
    return Look(str(digest), int(dhash), base64.b64decode(thumb), None if error is None else str(error))


def _write_cache(path: Path, looks: Mapping[str, Look]) -> bool:
    """Write the cache. Returns False if it cannot be written, which must not stop the check."""
    entries = {
        key: [look.sha256, look.dhash, base64.b64encode(look.thumb).decode(), look.error] for key, look in looks.items()
    }
    try:
        write_text(path, json.dumps({"version": VERSION, "photos": entries}))
    except UsageError:
        return False
    return True
