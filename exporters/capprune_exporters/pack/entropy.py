"""Coding streams of symbols: tables from counts, the rANS encoder, and the floor that no zeroth-order coder goes below.

`capprune_runtime.bundle.rans` decodes, and says how the streams are laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.rans import LOW, MOST_LANES, SYMBOLS, FrequencyTable, Symbols

SYMBOLS_PER_LANE = 1024  # each lane costs its state of 4 bytes, and each step of all lanes its time in NumPy
FEWEST_LANES = 16


def floor_bytes(kept: int, total: int, values: NDArray[Any]) -> float:
    """What a sparse tensor takes at least: total·H(kept / total) for the places and kept·H0(values) for the values.

    H is the entropy of a coin, H0 that of the values as they are distributed. Tables and headers are not in it.

    Args:
        kept: Weights that are not zero.
        total: Weights in all.
        values: The kept ones, in any form that tells them apart.

    Returns:
        Bytes, not rounded.
    """
    return (_entropy_bits(np.array([kept, total - kept])) + _entropy_bits(np.unique(values, return_counts=True)[1])) / 8


def _entropy_bits(counts: NDArray[np.int64]) -> float:
    """Bits of a sequence in which each thing comes so often."""
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def count_symbols(symbols: Symbols) -> NDArray[np.int64]:
    """How often each of the 256 symbols comes."""
    return np.bincount(symbols, minlength=SYMBOLS)


def fit_table(counts: NDArray[np.int64], bits: int) -> FrequencyTable:
    """The best table of 2^bits parts for symbols that come so often; each that comes has at least one part.

    Args:
        counts: `(256,)`, of which at most 2^bits are not 0.
        bits: 1 to 15.
    """
    used = counts > 0
    share = counts / counts.sum() * (1 << bits)
    frequencies = np.where(used, np.maximum(np.floor(share), 1), 0).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        while (left := (1 << bits) - int(frequencies.sum())) > 0:  # at most once a symbol
            gain = np.where(used, counts * np.log2((frequencies + 1) / frequencies), -1)
            frequencies[np.argsort(-gain, kind="stable")[: min(left, int(used.sum()))]] += 1
        while int(frequencies.sum()) > 1 << bits:
            loss = np.where(frequencies > 1, counts * np.log2(frequencies / (frequencies - 1)), np.inf)
            frequencies[loss.argmin()] -= 1
    return FrequencyTable(bits, frequencies)


def coded_bits(counts: NDArray[np.int64], table: FrequencyTable) -> float:
    """Bits that symbols take which come so often, coded with a table."""
    used = counts > 0
    return float((counts[used] * (table.bits - np.log2(table.frequencies[used]))).sum())


def choose_lanes(symbols: int) -> int:
    """A power of two that suits a stream of so many symbols."""
    lanes = FEWEST_LANES
    while 2 * lanes * SYMBOLS_PER_LANE <= symbols and lanes < MOST_LANES:
        lanes *= 2
    return lanes


def encode_runs(
    runs: Sequence[tuple[Symbols, FrequencyTable]], lanes: int
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Code symbols; `decode_runs` gives them back.

    A decoder undoes the encoder's steps, so that the encoder starts from the end.

    Args:
        runs: Symbols with the table to code them with, in which each of them has a frequency.
        lanes: How many states take turns.

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
