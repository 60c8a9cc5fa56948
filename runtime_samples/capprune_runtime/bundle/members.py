"""Reading a bundle's files: plain files of an allowed name only, up to a cap, once, into memory.

Wherever a bundle lies, a verifier sees it as `Members`: names, and bytes by name.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from capprune_runtime.errors import BundleError, MissingFile

_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a named pipe must not hold the reader up
    | getattr(os, "O_CLOEXEC", 0)
)


class Members(Protocol):
    """The files of a bundle, in a folder or in an archive."""

    @property
    def place(self) -> Path:
        """Where they lie, for messages: a member's place is `place / name`."""

    @property
    def packed_bytes(self) -> int | None:
        """The size of the file that they are packed in; None where they are not."""

    def names(self, cap: int) -> tuple[str, ...]:
        """Every name, sorted, with `/` between folders; an error beyond `cap` of them."""

    def read(self, name: str, cap_bytes: int) -> bytes:
        """One file, whole; an error when it is missing or larger than `cap_bytes`."""


@dataclass(frozen=True)
class FolderMembers:
    """The files of a bundle that is a folder."""

    place: Path
    packed_bytes: int | None = None

    def names(self, cap: int) -> tuple[str, ...]:
        """See `list_members`."""
        return list_members(self.place, cap)

    def read(self, name: str, cap_bytes: int) -> bytes:
        """See `read_member`."""
        return read_member(self.place, name, cap_bytes)


def read_member(folder: Path, name: str, cap_bytes: int) -> bytes:
    """Read one file of a bundle into memory.

    What is checked and what is used are the same bytes: nothing reads the file a second time.
    Hard links are accepted, because content-addressed stores and backups make them of plain files.

    Args:
        folder: The bundle.
        name: The file's name inside the bundle, with `/` between folders; the caller has allowed it.
        cap_bytes: The most bytes such a file may have.

    Raises:
        MissingFile: There is no such file.
        BundleError: It is not a plain file (a link, a folder, a device), too large or unreadable.
    """
    return read_plain_file(folder / name, cap_bytes)


def read_plain_file(path: Path, cap_bytes: int, of: str = "bundle", *, follow_links: bool = False) -> bytes:
    """Read one file into memory, once.

    Args:
        path: The file.
        cap_bytes: The most bytes that it may have.
        of: What the file is a part of, for messages.
        follow_links: Whether a link to a plain file is one. In a bundle it is not, because it could lead out of what was
            handed over; a checkpoint that the user names often lies in a store that is made of links.

    Raises:
        MissingFile: There is no such file.
        BundleError: It is not a plain file (a link, a folder, a device), too large or unreadable.
    """
    flags = _OPEN_FLAGS & ~getattr(os, "O_NOFOLLOW", 0) if follow_links else _OPEN_FLAGS
    plain = f"a {of} holds plain files only"
    try:
        if not follow_links and not stat.S_ISREG(path.lstat().st_mode):
            raise BundleError(plain, where=path, found=_kind(path))
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(plain, where=path, found=_kind_of(status.st_mode))
            if status.st_size > cap_bytes:
                raise BundleError(
                    f"a file of the {of} is too large",
                    where=path,
                    expected=f"at most {cap_bytes} bytes",
                    found=f"{status.st_size} bytes",
                )
            return file.read(status.st_size + 1)  # not up to the cap: read() takes all its memory first
    except FileNotFoundError:
        raise MissingFile(f"a file of the {of} is missing", where=path) from None
    except OSError as error:
        raise BundleError(f"a file of the {of} cannot be read", where=path, found=error.strerror) from None


def list_members(folder: Path, cap: int) -> tuple[str, ...]:
    """The names of all files under a bundle, sorted, with `/` between folders.

    Raises:
        BundleError: The folder is not one, holds more than `cap` entries, or holds a link or a device.
    """
    names: list[str] = []
    pending = [("", folder)]
    seen = 0
    while pending:
        prefix, current = pending.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            raise BundleError("a folder of the bundle cannot be read", where=current, found=error.strerror) from None
        seen += len(entries)
        if seen > cap:
            raise BundleError("a bundle holds too many files", where=folder, expected=f"at most {cap}", found=seen)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append((f"{prefix}{entry.name}/", Path(entry.path)))
            elif entry.is_file(follow_symlinks=False):
                names.append(prefix + entry.name)
            else:
                raise BundleError("a bundle holds plain files only", where=entry.path, found=_kind(Path(entry.path)))
    return tuple(sorted(names))


def _kind(path: Path) -> str:
    return _kind_of(path.lstat().st_mode)


def _kind_of(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a folder" if stat.S_ISDIR(mode) else "a device, socket or pipe"
