"""Zip archives whose list of members is checked (number, sizes, names) before any member is read."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from pathlib import PurePosixPath

from capprune_runtime.errors import BundleError, MissingFile

MAX_MEMBERS = 4096
MAX_DIRECTORY_BYTES = 1 << 20  # size of the list of members; one takes about 100
MAX_TOTAL_BYTES = 1 << 30  # size of all members, expanded
MAX_RATIO = 250  # expanded : compressed; weights with 99 % zeros reach about 40
RATIO_FROM_BYTES = 1 << 20  # smaller members may have any ratio

_ENCRYPTED = 1
_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_BYTES, _LOCATOR_BYTES = 22, 20
_IN_THE_64 = 0xFFFFFFFF
_TEXT = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}


class ZipMembers:
    """The members of a zip archive that passed all checks; see `open_zip`."""

    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self._archive, self.where = archive, where
        self._members = {member.filename: member for member in archive.infolist() if not member.is_dir()}

    def names(self) -> tuple[str, ...]:
        """Return the name of every file in the archive, in its order."""
        return tuple(self._members)

    def read(self, name: str, cap_bytes: int) -> bytes:
        """Read one member.

        Args:
            name: As `names` returns it.
            cap_bytes: Maximum size in bytes.

        Raises:
            MissingFile: There is no such member.
            BundleError: It is too large, truncated, or does not match its checksum.
        """
        where = f"{self.where}, {name}"
        if name not in self._members:
            raise MissingFile("a file is missing in the archive", where=where)
        member = self._members[name]
        if member.file_size > cap_bytes:
            raise BundleError(
                "a file of the archive is too large",
                where=where,
                expected=f"at most {cap_bytes:,} bytes",
                found=f"{member.file_size:,} bytes",
            )
        try:
            content = self._archive.read(member)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            ValueError,
            ArithmeticError,
            NotImplementedError,
            struct.error,
            OSError,
        ) as error:
            raise BundleError("a file of the archive is broken", where=where, found=error) from None
        if len(content) != member.file_size:
            raise BundleError(
                "a file of the archive is cut off",
                where=where,
                expected=f"{member.file_size:,} bytes",
                found=f"{len(content):,} bytes",
            )
        return content


def is_zip(data: bytes) -> bool:
    """Return whether the bytes start like a zip archive."""
    return data[:4] == b"PK\x03\x04"


def open_zip(data: bytes, where: str, *, stored: bool = False) -> ZipMembers:
    """Check the list of members of an archive.

    Args:
        data: The archive.
        where: Its name, for messages.
        stored: Whether compressed members are rejected, as in files that `torch.save` writes.

    Raises:
        BundleError: The archive is truncated, too large, has too many members, is encrypted, or a member's name or kind
            is unsafe.
    """
    _check_directory_size(data, where)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, struct.error, OSError) as error:
        raise BundleError("this is not a complete zip archive", where=where, found=error, hint=_CUT_OFF) from None
    if len(members) > MAX_MEMBERS:
        raise BundleError("too many files in the archive", where=where, expected=f"at most {MAX_MEMBERS:,}")
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL_BYTES:
        raise BundleError(
            "the archive expands to too much",
            where=where,
            expected=f"at most {MAX_TOTAL_BYTES:,} bytes",
            found=f"{total:,} bytes out of {len(data):,}",
        )
    seen: set[str] = set()
    for member in members:
        if problem := _problem(member, len(data), stored) or ("stands twice" if member.filename in seen else None):
            raise BundleError(f"a file of the archive {problem}", where=where, found=ascii(member.orig_filename[:80]))
        seen.add(member.filename)
    return ZipMembers(archive, where)


_CUT_OFF = "it may have been cut off; download it again"


def _problem(member: zipfile.ZipInfo, archive_bytes: int, stored: bool) -> str | None:
    name = member.orig_filename
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        return "has a name that leads out of it"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in _TEXT:
        return f"is compressed by method {member.compress_type}, expected stored or deflated"
    if stored and member.compress_type != zipfile.ZIP_STORED:
        return "is compressed, unlike in torch's files"
    if not 0 <= member.header_offset <= archive_bytes - member.compress_size:
        return "lies outside it"
    if member.file_size > max(RATIO_FROM_BYTES, MAX_RATIO * member.compress_size):
        return f"expands to {member.file_size:,} bytes out of {member.compress_size:,}"
    return None


def _check_directory_size(data: bytes, where: str) -> None:
    """Check the size of the list of members, because `zipfile` reads it as a whole into memory."""
    end = data.rfind(_END, max(0, len(data) - _END_BYTES - 0xFFFF))
    if end < 0 or end + _END_BYTES > len(data):
        raise BundleError(
            "this is not a complete zip archive", where=where, found="no list of members at its end", hint=_CUT_OFF
        )
    (size,) = struct.unpack_from("<I", data, end + 12)
    locator = end - _LOCATOR_BYTES
    if locator >= 0 and data[locator : locator + 4] == _LOCATOR_64:
        record = data.rfind(_END_64, max(0, locator - MAX_DIRECTORY_BYTES), locator)
        if record < 0 or record + 48 > locator:
            raise BundleError("this is not a complete zip archive", where=where, hint=_CUT_OFF)
        (size,) = struct.unpack_from("<Q", data, record + 40)
    if size > MAX_DIRECTORY_BYTES:
        raise BundleError(
            "the archive's list of files is too long",
            where=where,
            expected=f"at most {MAX_DIRECTORY_BYTES:,} bytes",
            found=f"{size:,} bytes",
        )
