"""What is not finished yet: hidden files and folders beside their place, and those that a killed process left behind.

A process holds a lock on what it is writing. The lock ends with the process, however that ends, so whatever bears the name of
something unfinished and is not locked was left behind.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where leftovers stay
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"  # ends the name of what is not finished

_NAME = re.compile(r"\..*\.[a-z0-9_]{8}\.partial", re.DOTALL)  # as tempfile makes them
_swept: set[Path] = set()  # folders in which this process has looked


@contextmanager
def partial_file(place: Path) -> Iterator[Path]:
    """A new empty file beside `place`, held while the block runs; what a killed process left there goes first."""
    sweep(place.parent)
    descriptor, path = _made(place, folder=False)
    try:
        yield path
    finally:
        os.close(descriptor)


@contextmanager
def partial_folder(place: Path, beside: Path | None = None) -> Iterator[Path]:
    """A new empty folder beside `place`, or in `beside`, held while the block runs; see `partial_file`."""
    sweep(beside or place.parent)
    descriptor, path = _made(place, folder=True, beside=beside)
    try:
        yield path
    finally:
        os.close(descriptor)


def sweep(folder: Path, *, again: bool = False) -> tuple[Path, ...]:
    """Remove what killed processes left unfinished in a folder; a process looks once into each.

    Args:
        folder: Where to look, not in folders below.
        again: Look even if this process has done so before.

    Returns:
        What was removed.
    """
    if fcntl is None or (folder in _swept and not again):
        return ()
    _swept.add(folder)
    removed = []
    with suppress(OSError):
        for path in folder.iterdir():
            if _NAME.fullmatch(path.name) and _remove(path):
                removed.append(path)
    return tuple(removed)


def prefix_of(place: Path) -> str:
    """The begin of the name of what is not finished, short enough for every name that a file may have."""
    return f".{os.fsdecode(os.fsencode(place.name)[:100])}."


def _made(place: Path, *, folder: bool, beside: Path | None = None) -> tuple[int, Path]:
    """A locked descriptor and its path; made again where another process swept it before it was locked."""
    where = beside or place.parent
    while True:
        if folder:
            path = Path(tempfile.mkdtemp(prefix=prefix_of(place), suffix=PARTIAL, dir=where))
            descriptor = os.open(path, os.O_RDONLY) if fcntl else os.open(os.devnull, os.O_RDONLY)
        else:
            descriptor, name = tempfile.mkstemp(prefix=prefix_of(place), suffix=PARTIAL, dir=where)
            path = Path(name)
        if fcntl is not None:
            with suppress(OSError):  # file systems without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return descriptor, path
        os.close(descriptor)


def _remove(path: Path) -> bool:
    """Remove a leftover, unless a living process holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
