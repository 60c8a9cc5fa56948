"""Expand one model file of a packed bundle, which is stored as literal bytes and coded pieces.

    section    sizes, plan (zlib), literals (zlib), low bits, rANS states, rANS words
    plan       of each piece: its position in the file, its number of items, its tables
    literals   the file without its pieces, and the parts of pieces that coding does not shrink

A piece is a vector of the model file. It holds bytes, floats of at most 256 distinct values, the words of the bundle's
vocabulary, or the row pointers and column indices of a sparse tensor. The latter are coded together, as the gaps
between kept weights. docs/bundle_format.md, section 8, is the specification. No memory is allocated before its size is
known to be possible.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.capz_plan import (
    MAX_LOW_BITS,
    MAX_PLAN_BYTES,
    BytesPiece,
    FloatPiece,
    Piece,
    PositionsPiece,
    WordsPiece,
    read_plan,
)
from capprune_runtime.bundle.inflate import inflate
from capprune_runtime.bundle.rans import LOW, MOST_LANES, SYMBOLS, Symbols, decode_runs
from capprune_runtime.errors import BundleError

_CHUNK_ITEMS = 1 << 18  # at once, so that memory grows little beyond the file's own
SECTION = struct.Struct("<6I")  # sizes of: coded plan, plan, coded literals, low bits, words, lanes


def expand_pieces(section: memoryview, size: int, words: Callable[[], bytes] = bytes) -> bytes:
    """Expand a model file.

    Args:
        section: The section of the packed bundle.
        size: Size of the expanded file, known to be possible.
        words: Returns the bundle's vocabulary.txt, for pieces that refer to it.

    Raises:
        BundleError: The section breaks a rule.
    """
    parts = _Parts(section)
    pieces = read_plan(inflate(parts.plan, parts.plan_bytes, "plan"), size)
    cuts = _sorted_cuts(pieces, size)
    not_coded = sum(piece.count * piece.planes.count(None) for piece in pieces if isinstance(piece, BytesPiece))
    left = size - sum(behind - first for first, behind in cuts)
    literals = np.frombuffer(inflate(parts.literals, left + not_coded, "literals"), np.uint8)
    runs = [run for piece in pieces for run in piece.runs]
    symbols = decode_runs(runs, parts.states, parts.words)[::-1]  # each is dropped after its use
    low_bits = _LowBits(parts.low_bits)
    content = np.empty(size, np.uint8)
    used = 0
    for (_, behind), (first, _) in pairwise([(0, 0), *cuts, (size, size)]):
        content[behind:first] = literals[used : used + first - behind]
        used += first - behind
    for piece in pieces:
        if isinstance(piece, BytesPiece):
            used = _fill_bytes(content, piece, symbols, literals, used)
        elif isinstance(piece, FloatPiece):
            _fill_floats(content, piece, symbols.pop())
        elif isinstance(piece, WordsPiece):
            _fill_words(content, piece, words())
        else:
            _fill_positions(content, piece, symbols.pop(), low_bits)
    low_bits.require_end()
    return content.tobytes()


class _Parts:
    """The parts of a section, without holes between them."""

    def __init__(self, section: memoryview) -> None:
        if len(section) < SECTION.size:
            raise BundleError("section: it is cut off", expected=f"{SECTION.size} bytes", found=len(section))
        plan, self.plan_bytes, literals, low_bits, words, lanes = SECTION.unpack(section[: SECTION.size])
        if self.plan_bytes > MAX_PLAN_BYTES:
            raise BundleError("section: the plan is too long", expected=MAX_PLAN_BYTES, found=self.plan_bytes)
        if not 1 <= lanes <= MOST_LANES:
            raise BundleError("section: number of lanes", expected=f"1 to {MOST_LANES}", found=lanes)
        total = SECTION.size + plan + literals + low_bits + 4 * lanes + 2 * words
        if total != len(section):
            raise BundleError("section: its parts do not fill it", expected=len(section), found=total)
        rest = section[SECTION.size :]
        self.plan, rest = rest[:plan], rest[plan:]
        self.literals, rest = rest[:literals], rest[literals:]
        self.low_bits, rest = rest[:low_bits], rest[low_bits:]
        self.states = np.frombuffer(rest[: 4 * lanes], "<u4").astype(np.int64)
        self.words = np.frombuffer(rest[4 * lanes :], "<u2")
        if (self.states < LOW).any():
            raise BundleError("section: a state is out of range", expected=f"at least {LOW}")


def _sorted_cuts(pieces: list[Piece], size: int) -> list[tuple[int, int]]:
    """Return the byte ranges that the pieces cut from the file, in file order."""
    cuts = sorted(cut for piece in pieces for cut in piece.cuts)
    for (_, behind), (first, _) in pairwise([*cuts, (size, size)]):
        if first < behind:
            raise BundleError(
                "plan: two pieces overlap, or one lies behind the file", where=f"byte {first} of the file"
            )
    return cuts


def _fill_bytes(
    content: NDArray[np.uint8], piece: BytesPiece, symbols: list[Symbols], literals: NDArray[np.uint8], used: int
) -> int:
    """Write a piece of bytes to its place; return the number of literals used so far."""
    width = len(piece.planes)
    items = content[piece.offset : piece.offset + piece.count * width].reshape(piece.count, width)
    for number, table in enumerate(piece.planes):
        if table is not None:
            items[:, number] = symbols.pop()
        else:
            items[:, number] = literals[used : used + piece.count]
            used += piece.count
    return used


def _fill_floats(content: NDArray[np.uint8], piece: FloatPiece, symbols: Symbols) -> None:
    book = piece.book.astype("<f4")
    for start in range(0, len(symbols), _CHUNK_ITEMS):
        _place(content, piece.offset + 4 * start, book[symbols[start : start + _CHUNK_ITEMS]])


def _fill_words(content: NDArray[np.uint8], piece: WordsPiece, words: bytes) -> None:
    if len(words) != piece.count:
        raise BundleError("plan: the vocabulary has another length", expected=piece.count, found=len(words))
    _place(content, piece.offset, np.frombuffer(words, np.uint8))


def _fill_positions(content: NDArray[np.uint8], piece: PositionsPiece, tokens: Symbols, low_bits: _LowBits) -> None:
    base, width = gap_tokens(piece.mantissa_bits)
    kept = np.zeros(piece.rows + 1, np.uint32)  # of each row, behind a zero
    last = -1  # place in rows * columns, row by row
    for start in range(0, len(tokens), _CHUNK_ITEMS):
        chunk = tokens[start : start + _CHUNK_ITEMS]
        places = np.cumsum(base[chunk] + low_bits.take(width[chunk]) + 1) + last
        last = int(places[-1])
        if last >= piece.rows * piece.columns:
            raise BundleError("positions: a kept weight lies behind the last row", found=last)
        rows = places // piece.columns
        first = np.flatnonzero(np.diff(rows, prepend=-1))  # of each row; they are sorted
        kept[rows[first] + 1] += np.diff(first, append=len(rows)).astype(np.uint32)
        indices = (places - rows * piece.columns).astype(f"<u{piece.index_bytes}")
        _place(content, piece.indices + start * piece.index_bytes, indices)
    np.cumsum(kept, out=kept)
    for start in range(0, len(kept), _CHUNK_ITEMS):
        pointers = kept[start : start + _CHUNK_ITEMS].astype(f"<u{piece.pointer_bytes}")
        _place(content, piece.pointers + start * piece.pointer_bytes, pointers)


def gap_tokens(mantissa_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the smallest gap of each token, and its number of extra low bits, each `(256,)`.

    The coding resembles floating point. Tokens below 2^m are the gap itself. Larger tokens hold the exponent and the m
    bits below the leading one.
    """
    token = np.arange(SYMBOLS)
    width = np.maximum((token >> mantissa_bits) - 1, 0)
    leading = np.where(token >> mantissa_bits > 0, 1 << mantissa_bits, 0)
    base = (leading + token % (1 << mantissa_bits)) << np.minimum(width, MAX_LOW_BITS)
    return base, width


class _LowBits:
    """A stream of numbers of given bit widths, low bits first."""

    def __init__(self, data: memoryview) -> None:
        self._data = np.concatenate([np.frombuffer(data, np.uint8), np.zeros(8, np.uint8)])
        self._bits = 8 * len(data)
        self._position = 0

    def take(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        if not widths.any():
            return widths
        behind = self._position + np.cumsum(widths)
        if int(behind[-1]) > self._bits:
            raise BundleError("low bits: they end early", expected=int(behind[-1]), found=self._bits)
        self._position = int(behind[-1])
        first = behind - widths
        window = np.zeros(len(widths), np.int64)
        for byte in range(5):  # 30 bits starting at any bit of a byte
            window |= self._data[(first >> 3) + byte].astype(np.int64) << (8 * byte)
        return (window >> (first & 7)) & ((1 << widths) - 1)

    def require_end(self) -> None:
        if self._bits - self._position >= 8:
            raise BundleError("low bits: some are left over", expected=self._position, found=self._bits)
        if self._position % 8 and int(self._data[self._position >> 3]) >> (self._position % 8):
            raise BundleError("low bits: the last byte holds more than its bits")


def _place(content: NDArray[np.uint8], offset: int, items: NDArray[np.generic]) -> None:
    stored = np.ascontiguousarray(items).view(np.uint8)
    content[offset : offset + len(stored)] = stored
