"""Decoding streams of symbols: rANS with static tables, many lanes side by side.

The packed bundle holds weights this way (docs/bundle_format.md, section "The packed bundle"). Read symbol by symbol:

    for each run:                                  # its length n and table are known
        for i in 0 .. n - 1:
            x = state[i mod lanes]
            slot = x mod 2^bits                    # bits: of the run's table
            s = the symbol whose range [first(s), first(s) + frequency(s)) holds slot
            x = frequency(s) * (x >> bits) + slot - first(s)
            if x < 2^16:  x = x * 2^16 + next word
            state[i mod lanes] = x

States stay below 2^32. Lanes do not depend on each other, so NumPy takes one symbol of every lane at once; the words come
in the same order, because the lanes that need one are served in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import BundleError

SYMBOLS = 256
MOST_TABLE_BITS = 15  # so that one word is always enough to bring a state back above LOW
LOW = 1 << 16  # a state lies in [LOW, 2^32); it is LOW where the encoder began
MOST_LANES = 1 << 14
MOST_STEPS = 1 << 17  # of all lanes together: some seconds, whatever a file says

Symbols = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class FrequencyTable:
    """How often each symbol comes, in parts of 2^bits.

    Args:
        bits: 1 to `MOST_TABLE_BITS`.
        frequencies: `(256,)` whole numbers that sum to 2^bits.
    """

    bits: int
    frequencies: NDArray[np.int64]

    @property
    def first(self) -> NDArray[np.int64]:
        """Where each symbol's range of slots begins, `(256,)`."""
        first: NDArray[np.int64] = np.cumsum(self.frequencies) - self.frequencies
        return first


@dataclass(frozen=True)
class Run:
    """Symbols that stand one after another and share a table."""

    count: int
    table: FrequencyTable


def decode_runs(runs: Sequence[Run], states: NDArray[np.int64], words: NDArray[np.uint16]) -> list[Symbols]:
    """Decode all symbols of a stream.

    Args:
        runs: What is in it.
        states: `(lanes,)` one for each lane, as the encoder left them, each in [2^16, 2^32).
        words: What the encoder wrote, each below 2^16.

    Returns:
        The symbols of each run.

    Raises:
        BundleError: The stream asks for too many steps, ends early, or does not end where the encoder began.
    """
    lanes = len(states)
    steps = sum(-(-run.count // lanes) for run in runs)
    if steps > MOST_STEPS:
        raise BundleError(
            "coded symbols: too many steps for so few lanes", expected=f"at most {MOST_STEPS}", found=steps
        )
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
    """One run, which changes the states; returns its symbols and the position of the next word."""
    bits, mask, lanes = run.table.bits, (1 << run.table.bits) - 1, len(states)
    # By slot: the symbol, its frequency, and the place of the slot in the symbol's range.
    symbol_at = np.repeat(np.arange(SYMBOLS, dtype=np.uint8), run.table.frequencies)
    frequency_at = run.table.frequencies[symbol_at]
    place_at = np.arange(1 << bits) - run.table.first[symbol_at]
    symbols = np.empty(run.count, np.uint8)
    for start in range(0, run.count, lanes):
        x = states[: min(lanes, run.count - start)]  # a view
        slot = x & mask
        symbols[start : start + len(x)] = symbol_at[slot]
        x >>= bits
        x *= frequency_at[slot]
        x += place_at[slot]
        low = np.flatnonzero(x < LOW)
        behind = position + len(low)
        if behind > len(words):
            raise BundleError("coded symbols: the words end early", found=f"{len(words)} words")
        x[low] = (x[low] << 16) | words[position:behind]
        position = behind
    return symbols, position
