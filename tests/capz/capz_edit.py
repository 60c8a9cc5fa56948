"""Taking a packed bundle apart and putting it together again with something changed, hashes and all."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, replace

from capprune_runtime.bundle.capz import MAGIC, MEMBER, PREAMBLE
from capprune_runtime.bundle.capz_pieces import SECTION


@dataclass(frozen=True)
class Member:
    name: bytes
    coding: int
    size: int
    section: bytes
    digest: bytes


def members_of(data: bytes) -> list[Member]:
    header_bytes = PREAMBLE.unpack(data[: PREAMBLE.size])[3]
    at, section, found = PREAMBLE.size, PREAMBLE.size + header_bytes, []
    while at < PREAMBLE.size + header_bytes:
        name = data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
        coding, size, stored, digest = MEMBER.unpack(data[at : at + MEMBER.size])
        at += MEMBER.size
        found.append(Member(name, coding, size, data[section : section + stored], digest))
        section += stored
    return found


def header_of(members: list[Member]) -> bytes:
    return b"".join(
        bytes([len(m.name)]) + m.name + MEMBER.pack(m.coding, m.size, len(m.section), m.digest) for m in members
    )


def container(
    members: list[Member],
    *,
    version: int = 1,
    header: bytes | None = None,
    behind: bytes = b"",
    size: int | None = None,
) -> bytes:
    """The file, with hash and sizes that fit unless they are given."""
    header = header_of(members) if header is None else header
    body = header + b"".join(member.section for member in members) + behind
    total = PREAMBLE.size + len(body) + 32 if size is None else size
    return sealed(PREAMBLE.pack(MAGIC, version, total, len(header)) + body)


def sealed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def changed(data: bytes, name: str, **changes: object) -> bytes:
    """The file with other facts of one member."""
    members = members_of(data)
    return container([replace(m, **changes) if m.name.decode() == name else m for m in members])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Section:
    """A section in pieces, its zlib streams expanded."""

    plan: bytes
    literals: bytes
    low_bits: bytes
    states: tuple[int, ...]
    words: tuple[int, ...]

    @classmethod
    def of(cls, section: bytes) -> Section:
        p, _, q, b, w, lanes = SECTION.unpack(section[: SECTION.size])
        rest = section[SECTION.size :]
        plan, literals, rest = zlib.decompress(rest[:p]), zlib.decompress(rest[p : p + q]), rest[p + q :]
        states = struct.unpack(f"<{lanes}I", rest[b : b + 4 * lanes])
        return cls(plan, literals, rest[:b], states, struct.unpack(f"<{w}H", rest[b + 4 * lanes :]))

    def packed(self) -> bytes:
        p, q = zlib.compress(self.plan), zlib.compress(self.literals)
        lanes, w = len(self.states), len(self.words)
        head = SECTION.pack(len(p), len(self.plan), len(q), len(self.low_bits), w, lanes)
        return head + p + q + self.low_bits + struct.pack(f"<{lanes}I{w}H", *self.states, *self.words)
