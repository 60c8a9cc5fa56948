"""Plan of a model file in a packed bundle: its coded pieces, their positions and their tables.

docs/bundle_format.md, section 8.2, is the specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.rans import MOST_TABLE_BITS, SYMBOLS, FrequencyTable, Run
from capprune_runtime.errors import BundleError

MAX_PLAN_BYTES = 1 << 20
MAX_PIECES = 4096
MAX_KEPT = 1 << 24  # positions of one piece, and rows; both are computed in 64 bits
MAX_PLACES = 1 << 40  # rows times columns
MAX_LOW_BITS = 30

# Kinds of pieces in the plan.
BYTES, SCALED, CODEBOOK, POSITIONS, WORDS = range(5)
ZERO_SYMBOL = 128  # the symbol of a zero weight in SCALED


@dataclass(frozen=True)
class BytesPiece:
    """Items of `width` bytes. Byte `n` of all items is a run, or literal if it has no table."""

    offset: int
    count: int
    planes: tuple[FrequencyTable | None, ...]

    @property
    def cuts(self) -> list[tuple[int, int]]:
        """Return (first byte, end) of each part of the file that the piece restores."""
        return [(self.offset, self.offset + self.count * len(self.planes))]

    @property
    def runs(self) -> list[Run]:
        """Return the piece's runs in the stream of symbols."""
        return [Run(self.count, table) for table in self.planes if table is not None]


@dataclass(frozen=True, eq=False)
class FloatPiece:
    """float32 values, each of them `book[symbol]`."""

    offset: int
    count: int
    book: NDArray[np.float32]
    table: FrequencyTable

    @property
    def cuts(self) -> list[tuple[int, int]]:
        """See `BytesPiece`."""
        return [(self.offset, self.offset + 4 * self.count)]

    @property
    def runs(self) -> list[Run]:
        """See `BytesPiece`."""
        return [Run(self.count, self.table)]


@dataclass(frozen=True)
class PositionsPiece:
    """Row pointers and column indices of a sparse tensor (rows, columns), counted in blocks if it has blocks."""

    pointers: int
    pointer_bytes: int
    indices: int
    index_bytes: int
    rows: int
    columns: int
    kept: int
    mantissa_bits: int
    table: FrequencyTable

    @property
    def cuts(self) -> list[tuple[int, int]]:
        """See `BytesPiece`."""
        return [
            (self.pointers, self.pointers + (self.rows + 1) * self.pointer_bytes),
            (self.indices, self.indices + self.kept * self.index_bytes),
        ]

    @property
    def runs(self) -> list[Run]:
        """See `BytesPiece`."""
        return [Run(self.kept, self.table)]


@dataclass(frozen=True)
class WordsPiece:
    """The bundle's whole vocabulary.txt, which a model file may hold as metadata."""

    offset: int
    count: int

    @property
    def cuts(self) -> list[tuple[int, int]]:
        """See `BytesPiece`."""
        return [(self.offset, self.offset + self.count)]

    @property
    def runs(self) -> list[Run]:
        """See `BytesPiece`."""
        return []


Piece: TypeAlias = BytesPiece | FloatPiece | PositionsPiece | WordsPiece


def read_plan(plan: bytes, size: int) -> list[Piece]:
    """Return the pieces of a file of `size` bytes.

    Raises:
        BundleError: The plan breaks a rule.
    """
    fields = _Fields(plan)
    count = fields.number(0, MAX_PIECES)
    pieces = [_piece(fields, size) for _ in range(count)]
    if fields.position != len(plan):
        raise BundleError("plan: bytes follow the last piece", found=len(plan) - fields.position)
    return pieces


class _Fields:
    """Reader of the numbers of a plan."""

    def __init__(self, plan: bytes) -> None:
        self._plan = plan
        self.position = 0

    def take(self, count: int) -> bytes:
        content = self._plan[self.position : self.position + count]
        if len(content) != count:
            raise BundleError("plan: it is cut off", where=f"byte {self.position}")
        self.position += count
        return content

    def number(self, low: int, high: int) -> int:
        """Read a varint: 7 bits a byte, low bits first; the top bit marks that more bytes follow."""
        start, value, shift, more = self.position, 0, 0, True
        while more and shift < 35:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            more, shift = byte >= 0x80, shift + 7
        if more or not low <= value <= high:
            raise BundleError("plan: a number is out of range", where=f"byte {start}", expected=f"{low} to {high}")
        return value

    def table(self, symbols: int = SYMBOLS) -> FrequencyTable:
        found = self.table_or_none(symbols)
        if found is None:
            raise BundleError("plan: a table is missing", where=f"byte {self.position}")
        return found

    def table_or_none(self, symbols: int = SYMBOLS) -> FrequencyTable | None:
        bits = self.number(0, MOST_TABLE_BITS)
        if bits == 0:
            return None
        first = self.number(0, symbols - 1)
        count = self.number(1, symbols - first)
        frequencies = np.zeros(SYMBOLS, np.int64)
        frequencies[first : first + count] = [self.number(0, 1 << bits) for _ in range(count)]
        if (total := int(frequencies.sum())) != 1 << bits:
            raise BundleError("plan: a table is not normalised", expected=1 << bits, found=total)
        return FrequencyTable(bits, frequencies)


def _piece(fields: _Fields, size: int) -> Piece:
    kind = fields.number(BYTES, WORDS)
    if kind == POSITIONS:
        return _positions_piece(fields, size)
    offset, count = fields.number(0, size), fields.number(1, max(size, 1))
    if kind == WORDS:
        return WordsPiece(offset, count)
    if kind == BYTES:
        width = fields.number(1, 4)
        return BytesPiece(offset, count, tuple(fields.table_or_none() for _ in range(width)))
    if kind == SCALED:
        scale = np.frombuffer(fields.take(4), "<f4").astype(np.float32)
        with np.errstate(all="ignore"):  # NaN or overflow: the hash decides
            book = scale * (np.arange(SYMBOLS) - ZERO_SYMBOL).astype(np.float32)
    else:
        book = np.frombuffer(fields.take(4 * fields.number(1, SYMBOLS)), "<f4").astype(np.float32)
    return FloatPiece(offset, count, book, fields.table(len(book)))


def _positions_piece(fields: _Fields, size: int) -> PositionsPiece:
    pointers, pointer_bytes = fields.number(0, size), fields.number(1, 4)
    indices, index_bytes = fields.number(0, size), fields.number(1, 4)
    rows, columns, kept = fields.number(1, MAX_KEPT), fields.number(1, 1 << 32), fields.number(1, MAX_KEPT)
    mantissa_bits = fields.number(0, 7)
    symbols = min(SYMBOLS, (MAX_LOW_BITS + 2) << mantissa_bits)
    piece = PositionsPiece(
        pointers, pointer_bytes, indices, index_bytes, rows, columns, kept, mantissa_bits, fields.table(symbols)
    )
    fits = kept < 1 << (8 * pointer_bytes) and columns <= 1 << (8 * index_bytes)
    if 3 in (pointer_bytes, index_bytes) or not fits or rows * columns > MAX_PLACES:
        raise BundleError("plan: positions do not fit their numbers", where=f"byte {fields.position}")
    return piece
