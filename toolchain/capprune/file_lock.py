"""File locks. The system releases a lock when its process ends for any reason."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from capprune_runtime.atomic import raise_if_unwritable
from capprune_runtime.errors import CapPruneError


@contextmanager
def locked(path: Path, *, busy: CapPruneError | None = None) -> Iterator[None]:
    """Lock a file while the block runs; the file is created if missing.

    Args:
        path: The file; it is not removed.
        busy: Raised if another process holds the lock; None waits for that process.

    Raises:
        CapPruneError: `busy`, or the file cannot be created.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if busy is None else 0)
    except Timeout:
        assert busy is not None
        raise busy from None
    except OSError as error:
        nowhere = isinstance(error, FileNotFoundError)  # a parent that allows no folders, such as /proc
        raise_if_unwritable(PermissionError(errno.EACCES, error.strerror) if nowhere else error, path.parent)
        raise
    try:
        yield
    finally:
        lock.release()
