"""Atomic output: files and folders are written beside their final path, then renamed."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capprune_runtime.errors import CapPruneError, UsageError
from capprune_runtime.partial import PARTIAL as PARTIAL
from capprune_runtime.partial import partial_file, partial_folder, prefix_of

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
        errno.ELOOP,
        errno.EBUSY,
    }
)
_LEAST_FREE_BYTES = 64 << 10  # minimum for any output; callers that know the size ask for more
_OF_THE_SYSTEM = frozenset({"lost+found"})  # entries that a new file system may contain


@contextmanager
def atomic_file(path: Path, *, needed_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`.

    It becomes `path` when the block succeeds and is removed when the block fails. Unfinished files of killed processes
    in the same folder are removed. Where `path` is a symbolic link, its target is written.

    Args:
        path: The file to create or replace; a missing folder is created.
        needed_bytes: Expected size of the file, for the message when the disk is full.

    Raises:
        CapPruneError: The disk is full.
        UsageError: `path` cannot be written.
    """
    temporary: Path | None = None
    try:
        place = _followed(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(place) as temporary:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            with temporary.open("rb") as written:
                os.fsync(written.fileno())  # some disks report only here that they are full
            temporary.replace(place)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise_if_unwritable(error, path, needed_bytes=needed_bytes)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`. It becomes `path` when the block succeeds and is removed when the block fails.

    If an empty folder at `path` cannot be replaced (a mount point, or a read-only parent), the content is moved into it
    instead.

    Raises:
        UsageError: `path` exists and is not an empty folder, or cannot be written.
        CapPruneError: The disk is full.
    """
    _refuse_filled(path)
    place = _followed(path).resolve()  # "." has no name from which to derive a temporary one
    within = place.is_dir() and not _can_be_replaced(place)
    temporary: Path | None = None
    try:
        beside = place if within else place.parent
        beside.mkdir(parents=True, exist_ok=True)
        with partial_folder(place, beside) as temporary:
            yield temporary
            if within:
                _move_up(temporary)
            else:
                temporary.chmod(0o777 & ~_umask())
                temporary.replace(place)  # fails if another process has filled it in the meantime
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise_if_unwritable(error, path)
        raise


def check_file_place(path: Path, *, needed_bytes: int = _LEAST_FREE_BYTES, ours: tuple[bytes, ...] = ()) -> None:
    """Check that a file can be written, before the work for it is done; nothing is left on the disk.

    Args:
        path: The file to create or replace.
        needed_bytes: Minimum size of the file.
        ours: How files of this kind start that capprune wrote. A file that is there already and does not start with one of
            them, nor is empty, is not replaced.

    Raises:
        UsageError: It is a folder or another program's file, or cannot be written.
        CapPruneError: The disk is full.
    """
    try:
        place = _followed(path)
        if place.is_dir():
            raise UsageError("a file cannot be written over a folder", where=path, expected="the name of a file")
        if place.exists() and not place.is_file():
            raise UsageError("this is not a plain file", where=path, expected="the name of a file")
        if ours and place.exists():
            _require_ours(place, path, ours)
        _check_place(place.parent / place.name, place.parent, needed_bytes)
    except OSError as error:
        raise_if_unwritable(error, path, needed_bytes=needed_bytes)
        raise


def check_folder_place(path: Path, *, new: bool = True, needed_bytes: int = _LEAST_FREE_BYTES) -> None:
    """Check that a folder can be created or filled, before the work for it is done; nothing is left on the disk.

    Args:
        path: The folder.
        new: Whether it must be new or empty.
        needed_bytes: Minimum size of its content.

    Raises:
        UsageError: The path holds something else, or cannot be written.
        CapPruneError: The disk is full.
    """
    try:
        if new:
            _refuse_filled(path)
        place = _followed(path).resolve()
        if place.exists() and not place.is_dir():
            raise UsageError("this is a file, not a folder", where=path)
        _check_place(place, place if place.is_dir() else place.parent, needed_bytes)
    except OSError as error:
        raise_if_unwritable(error, path, needed_bytes=needed_bytes)
        raise


def _require_ours(place: Path, path: Path, ours: tuple[bytes, ...]) -> None:
    with place.open("rb") as file:
        start = file.read(max(map(len, ours)))
    if start and not start.startswith(ours):
        raise UsageError(
            "there is another file here already, which capprune did not write",
            where=path,
            hint="choose another name, or remove this file first",
        )


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` to fill; it replaces the folder at `path` when the block succeeds.

    On Linux the two folders are exchanged atomically, so that a killed process leaves either the old or the new one.
    Elsewhere the old folder is briefly renamed to a hidden name.

    Raises:
        UsageError: `path` cannot be written.
        CapPruneError: The disk is full.
    """
    place = path.resolve()
    try:
        with partial_folder(place) as new:
            try:
                yield new
                new.chmod(place.stat().st_mode & 0o7777)
                if not _exchanged(new, place):
                    _replace_by_way_of_another(new, place)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    except BaseException as error:
        raise_if_unwritable(error, path)
        raise


def _exchanged(new: Path, old: Path) -> bool:
    """Exchange two folders atomically; return False where the system cannot."""
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(exchange(here, os.fsencode(new), here, os.fsencode(old), flag) == 0)


def _replace_by_way_of_another(new: Path, place: Path) -> None:
    # `sweep` never removes it
    aside = Path(tempfile.mkdtemp(prefix=prefix_of(place), suffix=".aside", dir=place.parent))
    place.replace(aside)
    try:
        new.replace(place)
    except BaseException:
        aside.replace(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; see `atomic_file`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write bytes atomically; see `atomic_file`."""
    with atomic_file(path, needed_bytes=len(data)) as temporary:
        temporary.write_bytes(data)


def raise_if_unwritable(error: BaseException, path: Path, *, needed_bytes: int | None = None) -> None:
    """Raise a user-facing error for a full disk or a path that cannot be written.

    Other errors are ignored. Rust and C++ libraries report a full disk in their own exception types, so the error's
    text is checked too.
    """
    number = getattr(error, "errno", None)
    if number in _FULL or "No space left on device" in str(error):
        raise CapPruneError(
            "the disk is full",
            where=path,
            expected=None if needed_bytes is None else f"{needed_bytes:,} bytes free",
            hint="free some space and run the same command again, which resumes",
        ) from error
    if number == errno.EFBIG:
        limit = "ulimit -f unlimited"
        raise CapPruneError("a file may not become as large as this", where=path, found=error, hint=limit) from error
    if isinstance(error, OSError) and number in _FORBIDDEN:
        raise UsageError("this place cannot be written to", where=path, found=error.strerror) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check_place(place: Path, folder: Path, needed_bytes: int) -> None:
    """Try to write beside `place`: in its folder, or in the nearest existing parent."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    longest = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if any(len(os.fsencode(part)) > longest for part in place.parts):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(place))
    try:
        handle, name = tempfile.mkstemp(prefix=".capprune.", suffix=PARTIAL, dir=folder)
    except FileNotFoundError as error:  # the folder exists, but takes no files, such as /proc
        raise PermissionError(errno.EACCES, "no file can be made there", str(folder)) from error
    os.close(handle)
    Path(name).unlink(missing_ok=True)
    if shutil.disk_usage(folder).free < needed_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _refuse_filled(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not _content(path)):
        raise UsageError(
            "there is something here already",
            where=path,
            expected="a new or empty folder",
            hint="choose another folder, or remove this one first",
        )


def _content(folder: Path) -> list[str]:
    names = {entry.name for entry in folder.iterdir()}
    return sorted(names - _OF_THE_SYSTEM if os.path.ismount(folder) else names)


def _can_be_replaced(folder: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    if os.path.ismount(folder) or not os.access(folder.parent, os.W_OK | os.X_OK, effective_ids=effective):
        return False
    return folder.stat().st_dev == folder.parent.stat().st_dev


def _move_up(temporary: Path) -> None:
    """Move the content of a folder into its parent: all of it, or nothing."""
    moved: list[Path] = []
    try:
        if len(_content(temporary.parent)) > 1:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(temporary.parent))
        for entry in sorted(temporary.iterdir()):
            moved.append(entry.rename(temporary.parent / entry.name))
        temporary.rmdir()
    except BaseException:
        for entry in moved:
            entry.rename(temporary / entry.name)
        raise


def _followed(path: Path) -> Path:
    """Return the target of a symbolic link, or the path itself if it is not a link."""
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except RuntimeError:  # pathlib raises it for circular links
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
