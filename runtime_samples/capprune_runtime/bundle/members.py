"""Reading a bundle's files: plain files with allowed names only, of limited size, read once into memory.

The verifier accesses every kind of bundle as `Members`: names, and bytes by name.
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
    | getattr(os, "O_NONBLOCK", 0)  # a named pipe must not block the reader
    | getattr(os, "O_CLOEXEC", 0)
)


class Members(Protocol):
    """The files of a bundle, in a folder or in an archive."""

    @property
    def place(self) -> Path:
        """Path of the bundle, for messages: the path of a member is `place / name`."""

    @property
    def packed_bytes(self) -> int | None:
        """Size of the packed file that holds them; None for a folder."""

    def names(self, cap: int) -> tuple[str, ...]:
        """Return all names, sorted, with `/` between folders. More than `cap` names are an error."""

    def read(self, name: str, cap_bytes: int) -> bytes:
        """Return one whole file. A missing file, or one larger than `cap_bytes`, is an error."""


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

    The file is read only once, so that the checked bytes are the bytes in use. Hard links are accepted, because
    content-addressed stores and backups create them.

    Args:
        folder: The bundle's folder.
        name: The file's name inside the bundle, with `/` between folders; the caller has checked it.
        cap_bytes: Maximum size of such a file.

    Raises:
        MissingFile: There is no such file.
        BundleError: It is not a plain file (a link, a folder, a device), too large or unreadable.
    """
    return read_plain_file(folder / name, cap_bytes)


def read_plain_file(path: Path, cap_bytes: int, of: str = "bundle", *, follow_links: bool = False) -> bytes:
    """Read one file into memory, once.

    Args:
        path: The file.
        cap_bytes: Maximum size.
        of: What the file belongs to, for messages.
        follow_links: Whether a link to a plain file is accepted. In a bundle it is not, because it could point outside
            the bundle. A checkpoint named by the user is often in a store of links.

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
            return file.read(status.st_size + 1)  # not up to the cap: read() allocates that much first
    except FileNotFoundError:
        raise MissingFile(f"a file of the {of} is missing", where=path) from None
    except OSError as error:
        raise BundleError(f"a file of the {of} cannot be read", where=path, found=error.strerror) from None


def list_members(folder: Path, cap: int) -> tuple[str, ...]:
    """Return the names of all files under a bundle, sorted, with `/` between folders.

    Raises:
        BundleError: It is not a folder, holds more than `cap` entries, or holds a link or a device.
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
