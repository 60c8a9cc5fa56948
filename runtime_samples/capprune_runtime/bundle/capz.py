"""The packed bundle, `.capz`: one file that expands to exactly the bytes of a bundle's files.

    magic "CAPZ", version, size of the whole file, size of the header
    header     for each file of the bundle: name, coding, size, stored size, SHA-256
    sections   one for each file, in the same order, without holes
    SHA-256    of everything before it

docs/bundle_format.md is the specification. Names are those of the bundle format. This module writes nothing to the
disk.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from capprune_runtime.bundle.costs import check_expansion
from capprune_runtime.bundle.inflate import inflate
from capprune_runtime.bundle.manifest import MANIFEST, VOCABULARY, allowed
from capprune_runtime.bundle.members import read_member
from capprune_runtime.bundle.vocabulary import MAX_VOCABULARY_BYTES
from capprune_runtime.errors import BundleError, HashMismatch, MissingFile, NewerFormat
from capprune_runtime.formats import kind_of_name

CAPZ_SUFFIX = ".capz"
MAGIC = b"CAPZ"
VERSION = 1
MAX_CAPZ_BYTES = 1 << 30  # of the file, and of what it expands to
MAX_HEADER_BYTES = 1 << 16
MAX_MEMBERS = 256  # same limit as for a folder
PREAMBLE = struct.Struct("<4sIQI")  # magic, version, bytes of the file, bytes of the header
MEMBER = struct.Struct("<BII32s")  # after the name: coding, size, stored size, SHA-256 of the expanded file
DIGEST_BYTES = 32

ZLIB, PIECES = 1, 2
_CODINGS = (ZLIB, PIECES)


@dataclass(frozen=True)
class _Member:
    """One packed file."""

    name: str
    coding: int
    size: int
    section: memoryview
    digest: bytes


@dataclass(frozen=True)
class CapzMembers:
    """The files of a packed bundle, each expanded when it is read."""

    place: Path
    packed_bytes: int
    _members: Mapping[str, _Member]

    def names(self, cap: int) -> tuple[str, ...]:
        """Return all names, sorted.

        Raises:
            BundleError: There are more than `cap`.
        """
        if len(self._members) > cap:
            raise BundleError(
                "a bundle holds too many files", where=self.place, expected=f"at most {cap}", found=len(self._members)
            )
        return tuple(sorted(self._members))

    def read(self, name: str, cap_bytes: int) -> bytes:
        """Expand one file.

        Raises:
            MissingFile: There is no file of this name.
            HashMismatch: It does not expand to the original bytes.
            BundleError: It is larger than `cap_bytes`, or violates its coding.
        """
        where = self.place / name
        member = self._members.get(name)
        if member is None:
            raise MissingFile("a file of the bundle is missing", where=where)
        if member.size > cap_bytes:
            expected, found = f"at most {cap_bytes} bytes", f"{member.size} bytes"
            raise BundleError("a file of the bundle is too large", where=where, expected=expected, found=found)
        try:
            if member.coding == ZLIB:
                content = inflate(member.section, member.size, "zlib")
            else:
                from capprune_runtime.bundle.capz_pieces import expand_pieces  # only if the file is not in the cache

                content = expand_pieces(member.section, member.size, self._words)
        except BundleError as error:
            error.where = str(where) if error.where is None else f"{where}, {error.where}"
            raise
        if hashlib.sha256(content).digest() != member.digest:
            raise HashMismatch("a file of the packed bundle does not expand to what was packed", where=where)
        return content

    def slow_digest(self, name: str) -> bytes | None:
        """Return the SHA-256 of an expanded file that is slow to expand; None for the others."""
        member = self._members.get(name)
        return member.digest if member is not None and member.coding == PIECES else None

    def _words(self) -> bytes:
        return self.read(VOCABULARY, MAX_VOCABULARY_BYTES)  # a zlib stream, as it is no model file


def open_capz(place: Path) -> CapzMembers:
    """Read a packed bundle and check its structure; `verify_members` checks its content.

    Raises:
        MissingFile: There is no such file.
        NewerFormat: It was written by a later capprune.
        HashMismatch: The file has changed since it was written.
        BundleError: It is not a packed bundle, or breaks a rule.
    """
    target = place.resolve()  # links to packed bundles are allowed
    data = read_member(target.parent, target.name, MAX_CAPZ_BYTES)
    try:
        return CapzMembers(place, len(data), _read_members(memoryview(data)))
    except BundleError as error:
        error.where = str(place) if error.where is None else f"{place}, {error.where}"
        raise


def _read_members(data: memoryview) -> dict[str, _Member]:
    if len(data) < PREAMBLE.size + DIGEST_BYTES or data[: len(MAGIC)] != MAGIC:
        raise BundleError("this is no packed bundle", expected=f"a file that starts with {MAGIC.decode()}")
    _, version, size, header_bytes = PREAMBLE.unpack(data[: PREAMBLE.size])
    if version > VERSION:
        raise NewerFormat(
            "the packed bundle was written by a later capprune",
            expected=f"at most version {VERSION}",
            found=version,
            hint="pip install --upgrade capprune",
        )
    if version != VERSION:
        raise BundleError("the packed bundle has an impossible version", expected=VERSION, found=version)
    if size != len(data):
        what = "is cut off" if size > len(data) else "is followed by other bytes"
        raise BundleError(f"the packed bundle {what}", expected=f"{size} bytes", found=f"{len(data)} bytes")
    content = data[:-DIGEST_BYTES]
    if hashlib.sha256(content).digest() != data[-DIGEST_BYTES:]:
        raise HashMismatch("the packed bundle is not the one that was written", hint="copy or download it again")
    content = content[PREAMBLE.size :]
    if not 0 < header_bytes <= min(MAX_HEADER_BYTES, len(content)):
        raise BundleError("size of the header", expected=f"at most {MAX_HEADER_BYTES} bytes", found=header_bytes)
    return _read_header(content[:header_bytes], content[header_bytes:], len(data))


def _read_header(header: memoryview, sections: memoryview, size_bytes: int) -> dict[str, _Member]:
    members: dict[str, _Member] = {}
    last, total, count = "", 0, 0
    while len(header):
        name, header = _read_name(header)
        if name <= last:
            raise BundleError("names of the header must rise", where=ascii(name))
        if len(header) < MEMBER.size:
            raise BundleError("the header is cut off", where=ascii(name))
        coding, size, stored, digest = MEMBER.unpack(header[: MEMBER.size])
        header = header[MEMBER.size :]
        if coding not in _CODINGS:
            raise BundleError("unknown coding of a file", where=name, expected=_CODINGS, found=coding)
        if coding == PIECES and kind_of_name(name) is None:  # slow to expand, and there may be 256 files
            raise BundleError("only model files may be in pieces", where=name, expected=ZLIB, found=coding)
        total, count, last = total + size, count + 1, name
        if total > MAX_CAPZ_BYTES or count > MAX_MEMBERS:
            expected = f"at most {MAX_CAPZ_BYTES} bytes in {MAX_MEMBERS} files"
            raise BundleError("the packed bundle would expand to too much", where=name, expected=expected)
        if stored > len(sections):
            raise BundleError("a section lies behind the end of the file", where=name, found=f"{stored} bytes")
        members[name] = _Member(name, coding, size, sections[:stored], digest)
        sections = sections[stored:]
    check_expansion(size_bytes, total)
    if len(sections):
        raise BundleError("bytes of the packed bundle belong to no file", found=f"{len(sections)} bytes")
    return members


def _read_name(header: memoryview) -> tuple[str, memoryview]:
    length = header[0]
    raw, rest = bytes(header[1 : 1 + length]), header[1 + length :]
    name = raw.decode("ascii", "backslashreplace")
    if len(raw) != length or not (name == MANIFEST or allowed(name)):
        raise BundleError("a packed bundle holds a file that is not of the format", where=ascii(name))
    return name, rest
