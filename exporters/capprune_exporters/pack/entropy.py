"""Code streams of symbols: tables from counts, the rANS encoder, and the lower bound of zeroth-order coders.

`capprune_runtime.bundle.rans` decodes the streams and describes their layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.rans import LOW, MOST_LANES, SYMBOLS, FrequencyTable, Symbols

SYMBOLS_PER_LANE = 1024  # each lane costs 4 bytes for its state; each step of all lanes costs time in NumPy
FEWEST_LANES = 16


def floor_bytes(kept: int, total: int, values: NDArray[Any]) -> float:
    """Return the smallest size of a sparse tensor with a zeroth-order coder.

    It is total·H(kept / total) for the positions and kept·H0(values) for the values. H is the binary entropy, H0 the
    entropy of the distribution of the values. Tables and headers are not included.

    Args:
        kept: Number of weights that are not zero.
        total: Number of all weights.
        values: The kept weights, in any form that distinguishes them.

    Returns:
        Bytes, not rounded.
    """
    return (_entropy_bits(np.array([kept, total - kept])) + _entropy_bits(np.unique(values, return_counts=True)[1])) / 8


def _entropy_bits(counts: NDArray[np.int64]) -> float:
    """Return the entropy in bits of a sequence with these counts of its symbols."""
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def count_symbols(symbols: Symbols) -> NDArray[np.int64]:
    """Return the counts of the 256 symbols."""
    return np.bincount(symbols, minlength=SYMBOLS)


def fit_table(counts: NDArray[np.int64], bits: int) -> FrequencyTable:
    """Return the best frequency table with the sum 2^bits for symbol counts; present symbols have at least 1.

    Args:
        counts: `(256,)`, of which at most 2^bits are not 0.
        bits: 1 to 15.
    """
    used = counts > 0
    share = counts / counts.sum() * (1 << bits)
    frequencies = np.where(used, np.maximum(np.floor(share), 1), 0).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        while (left := (1 << bits) - int(frequencies.sum())) > 0:  # at most once per symbol
            gain = np.where(used, counts * np.log2((frequencies + 1) / frequencies), -1)
            frequencies[np.argsort(-gain, kind="stable")[: min(left, int(used.sum()))]] += 1
        while int(frequencies.sum()) > 1 << bits:
            loss = np.where(frequencies > 1, counts * np.log2(frequencies / (frequencies - 1)), np.inf)
            frequencies[loss.argmin()] -= 1
    return FrequencyTable(bits, frequencies)


def coded_bits(counts: NDArray[np.int64], table: FrequencyTable) -> float:
    """Return the size in bits of symbols with these counts, coded with a table."""
    used = counts > 0
    return float((counts[used] * (table.bits - np.log2(table.frequencies[used]))).sum())


def choose_lanes(symbols: int) -> int:
    """Return a suitable power of two for a stream of this many symbols."""
    lanes = FEWEST_LANES
    while 2 * lanes * SYMBOLS_PER_LANE <= symbols and lanes < MOST_LANES:
        lanes *= 2
    return lanes


def encode_runs(
    runs: Sequence[tuple[Symbols, FrequencyTable]], lanes: int
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Encode symbols; `decode_runs` decodes them.

    The decoder reverses the encoder's steps, so the encoder starts at the end.

    Args:
        runs: Symbols with their tables, in which each symbol has a frequency.
        lanes: Number of interleaved states.

    Returns:
        The states `(lanes,)`, and the words.
    """
    states = np.full(lanes, LOW, np.int64)
    words: list[NDArray[np.uint16]] = []
    for symbols, table in reversed(runs):
        first = table.first
        for start in reversed(range(0, len(symbols), lanes)):
            part = symbols[start : start + lanes]
            x = states[: len(part)]  # a view
            frequency = table.frequencies[part]
            full = np.flatnonzero(x >= frequency << (32 - table.bits))
            words.append((x[full] & 0xFFFF).astype(np.uint16))
            x[full] >>= 16
            quotient, rest = np.divmod(x, frequency)
            x[:] = (quotient << table.bits) + rest + first[part]
    return states, np.concatenate(words[::-1] or [np.empty(0, np.uint16)])
