"""Unfinished output: hidden files and folders beside their final path, and the removal of leftovers.

A process holds a lock on what it is writing. The lock ends with the process, however the process ends. So an unfinished
file or folder that is not locked is a leftover.
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
except ImportError:  # Windows, where leftovers are kept
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"  # suffix of unfinished files and folders

_NAME = re.compile(r"\..*\.[a-z0-9_]{8}\.partial", re.DOTALL)  # names as tempfile makes them
_swept: set[Path] = set()  # folders that this process has swept


@contextmanager
def partial_file(place: Path) -> Iterator[Path]:
    """Yield a new empty file beside `place`, locked while the block runs.

    Leftovers of killed processes are removed first.
    """
    sweep(place.parent)
    descriptor, path = _made(place, folder=False)
    try:
        yield path
    finally:
        os.close(descriptor)


@contextmanager
def partial_folder(place: Path, beside: Path | None = None) -> Iterator[Path]:
    """Yield a new empty folder beside `place`, or in `beside`, locked while the block runs; see `partial_file`."""
    sweep(beside or place.parent)
    descriptor, path = _made(place, folder=True, beside=beside)
    try:
        yield path
    finally:
        os.close(descriptor)


def sweep(folder: Path, *, again: bool = False) -> tuple[Path, ...]:
    """Remove unfinished output of killed processes from a folder; a process sweeps each folder once.

    Args:
        folder: The folder to sweep, without its subfolders.
        again: Sweep even if this process has already done so.

    Returns:
        The removed paths.
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
    """Return the prefix of unfinished names for a path, short enough for any valid file name."""
    return f".{os.fsdecode(os.fsencode(place.name)[:100])}."


def _made(place: Path, *, folder: bool, beside: Path | None = None) -> tuple[int, Path]:
    """Return a locked descriptor and its path; retry if another process swept the file before it was locked."""
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
    """Remove a leftover, unless a running process holds its lock."""
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
