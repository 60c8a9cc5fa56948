"""Cut a model file into literal bytes and coded pieces, each with the coding that needs the fewest bytes.

`capprune_runtime.bundle.capz_pieces` expands the file and defines the layout. This module decides what to cut:

    of a sparse tensor    row pointers and column indices, together, as gaps between kept weights
    of stored values      8 bits unchanged; float32 as symbols for at most 256 distinct values, else byte by byte
    of metadata           the vocabulary, which the bundle already holds as a file
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from capprune_exporters.pack.entropy import choose_lanes, coded_bits, count_symbols, encode_runs, fit_table, floor_bytes
from capprune_exporters.pack.tensors import ModelTensor, offset_of, read_tensors
from capprune_runtime.bundle.capz_pieces import SECTION, gap_tokens
from capprune_runtime.bundle.capz_plan import (
    BYTES,
    CODEBOOK,
    MAX_KEPT,
    MAX_PIECES,
    MAX_PLAN_BYTES,
    POSITIONS,
    SCALED,
    WORDS,
    ZERO_SYMBOL,
)
from capprune_runtime.bundle.rans import SYMBOLS, FrequencyTable, Symbols
from capprune_runtime.tflite.file import Sparsity

SMALLEST_BYTES = 64  # smaller vectors are not worth a piece
TABLE_BITS = range(8, 15)  # precisions to try
MANTISSA_BITS = range(2, 6)
TABLE_AROUND = 8  # bytes that zlib adds to a table compressed alone, but not to a table inside the plan


@dataclass(frozen=True)
class PackedTensor:
    """Sizes of one stored tensor in a packed bundle.

    Attributes:
        file: The model file that holds it.
        name: Name of the tensor in that file.
        shape: Dense shape of the tensor.
        kept: Number of values that are not zero.
        file_bytes: Size in the model file: values and, if sparse, indices and row pointers.
        coded_bytes: Size in the packed bundle, with its share of tables and headers.
        floor_bytes: Lower bound of zeroth-order coders.
    """

    file: str
    name: str
    shape: tuple[int, ...]
    kept: int
    file_bytes: int
    coded_bytes: int
    floor_bytes: float


@dataclass(frozen=True)
class CutFile:
    """A model file as a section of a packed bundle, and the sizes of its parts."""

    section: bytes
    tensors: tuple[PackedTensor, ...]


@dataclass
class _Piece:
    """One piece under construction: its entry in the plan, its part of the streams, and its estimated cost.

    A piece without an entry is not coded, and only holds the cost of its bytes among the literals.
    """

    cuts: list[tuple[int, int]]
    plan: bytes
    runs: list[tuple[Symbols, FrequencyTable]] = field(default_factory=list)
    low_bits: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    literals: list[bytes] = field(default_factory=list)
    literal_bytes: int = 0
    bits: float = 0.0

    @property
    def cost_bytes(self) -> float:
        return self.bits / 8 + len(zlib.compress(self.plan, 9)) - TABLE_AROUND + self.literal_bytes


def cut_model(data: bytes, name: str, words: bytes = b"") -> CutFile | None:
    """Cut a model file that the verifier has accepted.

    Args:
        data: The whole file.
        name: Name of the file in the bundle; its extension gives the format.
        words: The bundle's vocabulary.txt.

    Returns:
        The cut file; None if nothing in it is worth a piece, or there are more pieces than a section may hold.
    """
    file = np.frombuffer(data, np.uint8)
    alone = _words(data, words)
    taken = [cut for piece in alone for cut in piece.cuts]
    found: list[tuple[ModelTensor, list[_Piece]]] = []
    for tensor in read_tensors(data, name):
        pieces = [piece for piece in _candidates(tensor, file) if not _overlap(piece.cuts, taken)]
        taken += [cut for piece in pieces for cut in piece.cuts]
        if pieces:
            found.append((tensor, [_coded_or_literal(piece, data) for piece in pieces]))
    entries = [piece.plan for pieces in (alone, *(pieces for _, pieces in found)) for piece in pieces if piece.plan]
    if not 0 < len(entries) <= MAX_PIECES or sum(map(len, entries)) > MAX_PLAN_BYTES - 8:
        return None
    section, (_, *sizes) = _section(data, [alone, *(pieces for _, pieces in found)])
    return CutFile(section, tuple(_packed(name, t, size) for (t, _), size in zip(found, sizes, strict=True)))


def _words(data: bytes, words: bytes) -> list[_Piece]:
    """Return the piece for the vocabulary, if the file holds it."""
    offset = data.find(words) if len(words) >= SMALLEST_BYTES else -1
    return [] if offset < 0 else [_Piece([(offset, offset + len(words))], _numbers(WORDS, offset, len(words)))]


def _candidates(tensor: ModelTensor, file: NDArray[np.uint8]) -> Iterator[_Piece]:
    """Return the possible pieces of a stored tensor."""
    values, offset = tensor.values, offset_of(tensor.values, file)
    if values.nbytes < SMALLEST_BYTES:
        return
    if tensor.sparsity is not None and max(len(values), prod(tensor.shape[:-1])) <= MAX_KEPT:
        yield _positions(tensor.sparsity, prod(tensor.shape[:-1]), tensor.shape[-1], file)
    if values.dtype.itemsize == 1:
        yield _bytes_piece(offset, values.view(np.uint8).reshape(-1, 1))
    elif values.dtype == np.float32:
        distinct, symbols = np.unique(values.view("<u4"), return_inverse=True)
        if len(distinct) <= SYMBOLS:
            yield _float_piece(offset, distinct.astype(np.uint32), symbols.astype(np.uint8))
        else:
            yield _bytes_piece(offset, values.view(np.uint8).reshape(-1, 4))


def _overlap(cuts: list[tuple[int, int]], taken: list[tuple[int, int]]) -> bool:
    """Return whether tensors share a vector, as flatbuffer writers often do."""
    return any(first < end and start < behind for first, behind in cuts for start, end in taken)


def _coded_or_literal(piece: _Piece, data: bytes) -> _Piece:
    """Return the piece, or one for literal bytes if zlib needs fewer bytes for them."""
    literal_bytes = sum(len(zlib.compress(data[first:behind], 9)) for first, behind in piece.cuts)
    return piece if piece.cost_bytes < literal_bytes else _Piece([], b"", literal_bytes=literal_bytes)


def _bytes_piece(offset: int, items: NDArray[np.uint8]) -> _Piece:
    """Return a piece for items (count, width). Each byte position is a stream of its own, coded or not."""
    count, width = items.shape
    piece = _Piece([(offset, offset + count * width)], _numbers(BYTES, offset, count, width))
    for plane in np.ascontiguousarray(items.T):
        table, serialised, bits = _best_table(plane)
        literal = len(zlib.compress(plane, 9))
        if bits / 8 + len(serialised) < literal:
            piece.runs.append((plane, table))
            piece.plan += serialised
            piece.bits += bits
        else:
            piece.literals.append(plane.tobytes())
            piece.literal_bytes += literal
            piece.plan += _numbers(0)
    return piece


def _float_piece(offset: int, distinct: NDArray[np.uint32], symbols: Symbols) -> _Piece:
    """Return a piece for float32 of at most 256 distinct values: multiples of a scale if possible, else a codebook."""
    cuts = [(offset, offset + 4 * len(symbols))]
    if (scaled := find_scale(distinct.view(np.float32))) is not None:
        scale, multiples = scaled
        symbols = (multiples + ZERO_SYMBOL).astype(np.uint8)[symbols]
        plan = _numbers(SCALED, offset, len(symbols)) + struct.pack("<f", scale)
    else:
        plan = _numbers(CODEBOOK, offset, len(symbols), len(distinct)) + distinct.astype("<u4").tobytes()
    table, serialised, bits = _best_table(symbols)
    return _Piece(cuts, plan + serialised, [(symbols, table)], bits=bits)


def find_scale(values: NDArray[np.float32]) -> tuple[float, NDArray[np.int64]] | None:
    """Return the scale of which all values are exact integer multiples in float32, and the multiples.

    Args:
        values: Distinct values, `(n,)`.

    Returns:
        None if there is no such scale with multiples from -128 to 127.
    """
    largest = np.abs(values).max()
    if not np.isfinite(values).all() or largest == 0:
        return None
    for most in range(127, 0, -1):
        near = np.float32(largest / np.float32(most))
        for scale in (near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))):
            if scale < np.finfo(np.float32).tiny:
                continue
            multiples = np.rint(values.astype(np.float64) / float(scale))
            if np.abs(multiples).max() <= 127:
                whole = multiples.astype(np.int64)
                if ((scale * whole.astype(np.float32)).view(np.uint32) == values.view(np.uint32)).all():
                    return float(scale), whole
    return None


def _positions(sparsity: Sparsity, rows: int, width: int, file: NDArray[np.uint8]) -> _Piece:
    """Return row pointers and column indices as gaps, counted over rows * columns positions."""
    level = next(level for level in sparsity.dimensions if level.compressed)
    block = sparsity.dimensions[-1].dense_size if sparsity.block_map else 1
    columns, pointers, indices = width // block, level.segments, level.indices
    row = np.repeat(np.arange(rows), np.diff(pointers.astype(np.int64)))
    places = row * columns + indices.astype(np.int64)
    gaps = np.diff(places, prepend=-1) - 1
    cuts = [(offset_of(v, file), offset_of(v, file) + v.nbytes) for v in (pointers, indices)]
    head = _numbers(POSITIONS, cuts[0][0], pointers.itemsize, cuts[1][0], indices.itemsize, rows, columns, len(gaps))
    options = [piece for bits in MANTISSA_BITS if (piece := _gaps(gaps, bits, cuts, head)) is not None]
    return min(options, key=lambda piece: piece.cost_bytes)


def _gaps(gaps: NDArray[np.int64], mantissa_bits: int, cuts: list[tuple[int, int]], head: bytes) -> _Piece | None:
    """Return the gaps as tokens and low bits; None if a gap is too long for the tokens."""
    exponent = np.frexp(np.maximum(gaps, 1).astype(np.float64))[1].astype(np.int64) - 1  # of the leading bit; exact
    width = np.maximum(exponent - mantissa_bits, 0)
    large = gaps >= 1 << mantissa_bits
    token = np.where(large, ((width + 1) << mantissa_bits) + (gaps >> width) - (1 << mantissa_bits), gaps)
    if int(token.max()) >= SYMBOLS:
        return None
    symbols = token.astype(np.uint8)
    table, serialised, bits = _best_table(symbols)
    base, _ = gap_tokens(mantissa_bits)
    return _Piece(
        cuts,
        head + _numbers(mantissa_bits) + serialised,
        [(symbols, table)],
        low_bits=(gaps - base[symbols], width),
        bits=bits + float(width.sum()),
    )


def _best_table(symbols: Symbols) -> tuple[FrequencyTable, bytes, float]:
    """Return the table for which table and symbols are smallest: table, its entry in the plan, bits of the symbols."""
    counts = count_symbols(symbols)
    options = []
    for bits in TABLE_BITS:
        table = fit_table(counts, bits)
        serialised = _serialise(table)
        coded = coded_bits(counts, table)
        options.append((coded / 8 + len(zlib.compress(serialised, 9)), table, serialised, coded))
    _, table, serialised, coded = min(options, key=lambda option: option[0])
    return table, serialised, coded


def _serialise(table: FrequencyTable) -> bytes:
    used = np.flatnonzero(table.frequencies)
    first, behind = int(used[0]), int(used[-1]) + 1
    return _numbers(table.bits, first, behind - first, *table.frequencies[first:behind].tolist())


def _numbers(*values: int) -> bytes:
    """Return numbers as varints: 7 bits a byte, low bits first."""
    out = bytearray()
    for value in values:
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def _section(data: bytes, tensors: list[list[_Piece]]) -> tuple[bytes, list[int]]:
    """Return the section of a file, and the bytes of each tensor in it."""
    pieces = [piece for tensor in tensors for piece in tensor]
    plan = _numbers(sum(bool(piece.plan) for piece in pieces)) + b"".join(piece.plan for piece in pieces)
    runs = [run for piece in pieces for run in piece.runs]
    lanes = choose_lanes(sum(len(symbols) for symbols, _ in runs))
    states, words = encode_runs(runs, lanes)
    low_bits = _pack_low_bits([piece.low_bits for piece in pieces if piece.low_bits is not None])
    left = _without(data, sorted(cut for piece in pieces for cut in piece.cuts))
    literals = zlib.compress(left + b"".join(part for piece in pieces for part in piece.literals), 9)
    packed = zlib.compress(plan, 9)
    entropy = low_bits + states.astype("<u4").tobytes() + words.astype("<u2").tobytes()
    head = SECTION.pack(len(packed), len(plan), len(literals), len(low_bits), len(words), lanes)
    sizes = _shares(tensors, len(entropy), len(head) + len(packed))
    return head + packed + literals + entropy, sizes


def _shares(tensors: list[list[_Piece]], entropy_bytes: int, plan_bytes: int) -> list[int]:
    """Return the bytes of each tensor: symbols by their information, plan and headers by the length of entries."""
    bits = np.array([sum(piece.bits for piece in tensor) for tensor in tensors])
    plans = np.array([sum(len(piece.plan) for piece in tensor) for tensor in tensors])
    literals = np.array([sum(piece.literal_bytes for piece in tensor) for tensor in tensors])
    exact = entropy_bytes * bits / max(bits.sum(), 1) + plan_bytes * plans / max(plans.sum(), 1) + literals
    ends = np.rint(np.cumsum(exact)).astype(np.int64)  # so that the shares sum to the total
    return [int(size) for size in np.diff(ends, prepend=0)]


def _pack_low_bits(parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> bytes:
    if not parts:
        return b""
    values, widths = (np.concatenate(part) for part in zip(*parts, strict=True))
    # position of a bit in its number
    place = np.arange(int(widths.sum())) - np.repeat(np.cumsum(widths) - widths, widths)
    return np.packbits((np.repeat(values, widths) >> place & 1).astype(np.uint8), bitorder="little").tobytes()


def _without(data: bytes, cuts: list[tuple[int, int]]) -> bytes:
    kept, end = [], 0
    for first, behind in cuts:
        kept.append(data[end:first])
        end = behind
    return b"".join([*kept, data[end:]])


def _packed(file: str, tensor: ModelTensor, coded_bytes: int) -> PackedTensor:
    kept = tensor.values[tensor.values != 0]
    return PackedTensor(
        file=file,
        name=tensor.name,
        shape=tensor.shape,
        kept=len(kept),
        file_bytes=tensor.size_bytes,
        coded_bytes=coded_bytes,
        floor_bytes=floor_bytes(len(kept), tensor.elements, kept),
    )
