"""Decode streams of symbols: rANS with static tables, many lanes in parallel.

The packed bundle holds weights this way (docs/bundle_format.md, section "The packed bundle"). Decoding symbol by
symbol:

    for each run:                                  # its length n and table are known
        for i in 0 .. n - 1:
            x = state[i mod lanes]
            slot = x mod 2^bits                    # bits: of the run's table
            s = the symbol whose range [first(s), first(s) + frequency(s)) holds slot
            x = frequency(s) * (x >> bits) + slot - first(s)
            if x < 2^16:  x = x * 2^16 + next word
            state[i mod lanes] = x

States stay below 2^32. Lanes are independent, so NumPy decodes one symbol of every lane at once. The order of the words
is the same, because lanes that need a word take it in lane order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import BundleError

SYMBOLS = 256
MOST_TABLE_BITS = 15  # so that one word always brings a state back above LOW
LOW = 1 << 16  # a state is in [LOW, 2^32); the encoder starts at LOW
MOST_LANES = 1 << 14
MOST_STEPS = 1 << 15  # limit for all lanes together, besides those of full lanes; the encoder needs a fraction of it
_SHORT = 8  # a run of less than 1/8 of its table's slots is decoded without a list of the slots

Symbols = NDArray[np.uint8]
_LookUp: TypeAlias = Callable[[NDArray[np.int64]], tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, eq=False)
class FrequencyTable:
    """Frequency of each symbol, as a count out of 2^bits.

    Args:
        bits: 1 to `MOST_TABLE_BITS`.
        frequencies: `(256,)` integers with the sum 2^bits.
    """

    bits: int
    frequencies: NDArray[np.int64]

    @property
    def first(self) -> NDArray[np.int64]:
        """Start of each symbol's range of slots, `(256,)`."""
        first: NDArray[np.int64] = np.cumsum(self.frequencies) - self.frequencies
        return first


@dataclass(frozen=True)
class Run:
    """Consecutive symbols that share a table."""

    count: int
    table: FrequencyTable


def decode_runs(runs: Sequence[Run], states: NDArray[np.int64], words: NDArray[np.uint16]) -> list[Symbols]:
    """Decode all symbols of a stream.

    Args:
        runs: The runs of the stream.
        states: `(lanes,)` final states of the encoder, one for each lane, each in [2^16, 2^32).
        words: Words that the encoder wrote, each below 2^16.

    Returns:
        The symbols of each run.

    Raises:
        BundleError: The stream needs too many steps, ends early, or does not end in the encoder's first state.
    """
    lanes = len(states)
    steps = sum(-(-run.count // lanes) for run in runs)
    limit = MOST_STEPS + sum(run.count for run in runs) // MOST_LANES
    if steps > limit:
        raise BundleError("coded symbols: too many steps for so few lanes", expected=f"at most {limit}", found=steps)
    states = states.copy()
    position, decoded = 0, []
    for run in runs:
        symbols, position = _decode_run(run, states, words, position)
        decoded.append(symbols)
    if position != len(words):
        raise BundleError("coded symbols: words are left over", expected=position, found=len(words))
    if (states != LOW).any():
        raise BundleError("coded symbols: the decoder does not end where the encoder began")
    return decoded


def _decode_run(run: Run, states: NDArray[np.int64], words: NDArray[np.uint16], position: int) -> tuple[Symbols, int]:
    """Decode one run, updating the states in place; return its symbols and the position of the next word."""
    bits, mask, lanes = run.table.bits, (1 << run.table.bits) - 1, len(states)
    look_up = _look_up_range(run.table) if run.count * _SHORT < 1 << bits else _look_up_slot(run.table)
    symbols = np.empty(run.count, np.uint8)
    for start in range(0, run.count, lanes):
        x = states[: min(lanes, run.count - start)]  # a view
        slot = x & mask
        symbols[start : start + len(x)], frequency, place = look_up(slot)
        x >>= bits
        x *= frequency
        x += place
        low = np.flatnonzero(x < LOW)
        behind = position + len(low)
        if behind > len(words):
            raise BundleError("coded symbols: the words end early", found=f"{len(words)} words")
        x[low] = (x[low] << 16) | words[position:behind]
        position = behind
    return symbols, position


def _look_up_slot(table: FrequencyTable) -> _LookUp:
    """Return what finds slots in a list of all: the symbol, its frequency, and the place in the symbol's range."""
    symbol_at = np.repeat(np.arange(SYMBOLS, dtype=np.uint8), table.frequencies)
    frequency_at = table.frequencies[symbol_at]
    place_at = np.arange(1 << table.bits) - table.first[symbol_at]
    return lambda slot: (symbol_at[slot], frequency_at[slot], place_at[slot])


def _look_up_range(table: FrequencyTable) -> _LookUp:
    """Return what finds the same without the list, which costs more than a few symbols do."""
    used = np.flatnonzero(table.frequencies)
    first, frequencies = table.first[used], table.frequencies[used]

    def look_up(slot: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
        found = np.searchsorted(first, slot, side="right") - 1
        return used[found], frequencies[found], slot - first[found]

    return look_up
