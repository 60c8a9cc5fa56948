"""A second reader of packed bundles: section 8 of docs/bundle_format.md, symbol by symbol, in plain Python.

It shares no code with `capprune_runtime` and trusts its file: what must be refused is the other reader's affair.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass


def expand(data: bytes) -> dict[str, bytes]:
    """Every file of a packed bundle."""
    magic, version, size, header_bytes = struct.unpack("<4sIQI", data[:20])
    assert (magic, version, size) == (b"CAPZ", 1, len(data))
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    at, section, packed = 20, 20 + header_bytes, {}
    while at < 20 + header_bytes:
        name = data[at + 1 : at + 1 + data[at]].decode()
        at += 1 + data[at]
        coding, size, stored, digest = struct.unpack("<BII32s", data[at : at + 41])
        at += 41
        content = data[section : section + stored]
        section += stored
        packed[name] = (coding, size, content, digest)
    assert section == len(data) - 32
    files = {}
    for name, (coding, size, content, digest) in packed.items():
        words = zlib.decompress(packed["vocabulary.txt"][2])
        files[name] = zlib.decompress(content) if coding == 1 else expand_section(content, size, words)
        assert len(files[name]) == size and hashlib.sha256(files[name]).digest() == digest
    return files


@dataclass
class Table:
    bits: int
    frequencies: dict[int, int]


class Plan:
    def __init__(self, plan: bytes) -> None:
        self.plan, self.at = plan, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.plan[self.at - count : self.at]

    def number(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value += (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def table(self) -> Table | None:
        bits = self.number()
        if bits == 0:
            return None
        first, count = self.number(), self.number()
        return Table(bits, {first + n: self.number() for n in range(count)})


class Rans:
    """The stream of symbols."""

    def __init__(self, states: list[int], words: list[int]) -> None:
        self.states, self.words, self.used = states, words, 0

    def run(self, count: int, table: Table | None) -> list[int]:
        assert table is not None
        slots = [(s, place, f) for s, f in table.frequencies.items() for place in range(f)]
        assert len(slots) == 1 << table.bits
        symbols = []
        for i in range(count):
            lane = i % len(self.states)
            x = self.states[lane]
            symbol, place, frequency = slots[x % (1 << table.bits)]
            x = frequency * (x >> table.bits) + place
            if x < 1 << 16:
                x = x << 16 | self.words[self.used]
                self.used += 1
            assert x < 1 << 32
            self.states[lane] = x
            symbols.append(symbol)
        return symbols

    def end(self) -> None:
        assert self.used == len(self.words) and set(self.states) == {1 << 16}


class Bits:
    """The stream of low bits."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        found, self.value, self.left = self.value % (1 << count), self.value >> count, self.left - count
        return found


def expand_section(section: bytes, size: int, words: bytes = b"") -> bytes:
    sizes = struct.unpack("<6I", section[:24])
    p, q, b, w, lanes = sizes[0], *sizes[2:]
    plan = zlib.decompress(section[24 : 24 + p])
    assert len(plan) == sizes[1]
    at = 24 + p + q
    literals = zlib.decompress(section[24 + p : at])
    bits = Bits(section[at : at + b])
    states = list(struct.unpack(f"<{lanes}I", section[at + b : at + b + 4 * lanes]))
    rans = Rans(states, list(struct.unpack(f"<{w}H", section[at + b + 4 * lanes :])))
    fields = Plan(plan)
    vectors: dict[int, bytes | list[list[int] | int]] = {}  # by offset; a list where some bytes are still literal
    for _ in range(fields.number()):
        piece(fields, rans, bits, vectors, words)
    assert fields.at == len(plan)
    rans.end()
    assert bits.left < 8 and bits.value == 0
    return put_together(vectors, literals, size)


def piece(
    fields: Plan, rans: Rans, bits: Bits, vectors: dict[int, bytes | list[list[int] | int]], words: bytes
) -> None:
    kind = fields.number()
    offset = fields.number()
    if kind == 3:
        positions(fields, rans, bits, vectors, offset)
        return
    count = fields.number()
    if kind == 4:
        assert count == len(words)
        vectors[offset] = words
    elif kind == 0:
        tables = [fields.table() for _ in range(fields.number())]
        vectors[offset] = [count if table is None else rans.run(count, table) for table in tables]
    elif kind == 1:
        (scale,) = struct.unpack("<f", fields.take(4))
        symbols = rans.run(count, fields.table())
        # The product of a float32 and a number of 8 bits is exact in float64, and rounded to float32 here.
        vectors[offset] = b"".join(struct.pack("<f", scale * (s - 128)) for s in symbols)
    else:
        book = [fields.take(4) for _ in range(fields.number())]
        vectors[offset] = b"".join(book[s] for s in rans.run(count, fields.table()))


def positions(
    fields: Plan, rans: Rans, bits: Bits, vectors: dict[int, bytes | list[list[int] | int]], pointers_at: int
) -> None:
    pointer_bytes, indices_at, index_bytes, rows, columns, kept, m = (fields.number() for _ in range(7))
    tokens = rans.run(kept, fields.table())
    place, counts, indices = -1, [0] * rows, []
    for s in tokens:
        gap = s
        if s >= 1 << m:
            k = (s >> m) - 1
            gap = ((1 << m) + s % (1 << m) << k) + bits.take(k)
        place += 1 + gap
        counts[place // columns] += 1
        indices.append(place % columns)
    pointers = [sum(counts[:row]) for row in range(rows + 1)]
    vectors[pointers_at] = b"".join(n.to_bytes(pointer_bytes, "little") for n in pointers)
    vectors[indices_at] = b"".join(n.to_bytes(index_bytes, "little") for n in indices)


def put_together(vectors: dict[int, bytes | list[list[int] | int]], literals: bytes, size: int) -> bytes:
    lengths = {
        offset: len(v) if isinstance(v, bytes) else sum(p if isinstance(p, int) else len(p) for p in v)
        for offset, v in vectors.items()
    }
    used = size - sum(lengths.values())
    for offset, vector in vectors.items():  # in the order of the plan: planes that are literal stand behind the rest
        if not isinstance(vector, bytes):
            planes = []
            for plane in vector:
                if isinstance(plane, int):
                    planes.append(list(literals[used : used + plane]))
                    used += plane
                else:
                    planes.append(plane)
            vectors[offset] = bytes(byte for item in zip(*planes, strict=True) for byte in item)
    assert used == len(literals)
    out, at, left = b"", 0, literals
    for offset in sorted(vectors):
        vector = vectors[offset]
        assert isinstance(vector, bytes)
        out, left = out + left[: offset - at] + vector, left[offset - at :]
        at = offset + len(vector)
    return out + left[: size - at]
