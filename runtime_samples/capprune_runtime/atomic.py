"""Files and folders that are there whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capprune_runtime.errors import CapPruneError, UsageError

PARTIAL = ".partial"  # ends the name of what is not finished; only a killed process leaves one behind

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
    }
)


@contextmanager
def atomic_file(path: Path, *, needed_bytes: int | None = None) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` when the block ends well and is removed when it does not.

    Args:
        path: The file to make or replace; its folder is made if it is not there.
        needed_bytes: The size that the file will have, for the message when the disk is full.

    Raises:
        CapPruneError: If the disk is full.
        UsageError: If the place cannot be written to.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as written:
            os.fsync(written.fileno())  # some disks say only now that they are full
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise_if_unwritable(error, path, needed_bytes=needed_bytes)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to fill; it becomes `path` when the block ends well and is removed when it does not.

    Raises:
        UsageError: If `path` exists already and is not an empty folder, or the place cannot be written to.
        CapPruneError: If the disk is full.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(
            "there is something here already",
            where=path,
            expected="a new or empty folder",
            hint="choose another folder, or remove this one first",
        )
    place = path.resolve()  # "." has no name to stand beside
    temporary: Path | None = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=PARTIAL, dir=place.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(place)  # refused where another has filled it in the meantime
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise_if_unwritable(error, path)
        raise


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to fill; it takes the place of the one at `path` when the block ends well.

    The old one stands aside until the new one has its place: a kill between the two leaves both, under hidden names.

    Raises:
        UsageError: If the place cannot be written to.
        CapPruneError: If the disk is full.
    """
    place = path.resolve()
    made: list[Path] = []
    try:
        for _ in ("new", "aside"):
            made.append(Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=PARTIAL, dir=place.parent)))
        new, aside = made
        yield new
        new.chmod(place.stat().st_mode & 0o7777)
        place.replace(aside)
        try:
            new.replace(place)
        except BaseException:
            aside.replace(place)
            raise
    except BaseException as error:
        raise_if_unwritable(error, path)
        raise
    finally:
        for folder in made if place.exists() else ():
            shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `atomic_file` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write bytes as `atomic_file` does."""
    with atomic_file(path, needed_bytes=len(data)) as temporary:
        temporary.write_bytes(data)


def raise_if_unwritable(error: BaseException, path: Path, *, needed_bytes: int | None = None) -> None:
    """Turn a full disk or a place that cannot be written to into the message that the user needs.

    Other errors are left alone. Libraries in Rust or C++ report a full disk in their own exception types, so the text
    is looked at as well.
    """
    number = getattr(error, "errno", None)
    if number in _FULL or "No space left on device" in str(error):
        raise CapPruneError(
            "the disk is full",
            where=path,
            expected=None if needed_bytes is None else f"{needed_bytes:,} bytes free",
            hint="free some space and run the same command again: it goes on from there",
        ) from error
    if isinstance(error, OSError) and number in _FORBIDDEN:
        raise UsageError("this place cannot be written to", where=path, found=error.strerror) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
