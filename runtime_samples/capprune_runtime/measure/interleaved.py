"""Time interleaved calls, so that a machine that slows down affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)


def time_interleaved(
    calls: Mapping[Key, Callable[[], object]], *, rounds: int, each: int, cold: int = 0
) -> dict[Key, NDArray[np.float64]]:
    """Time several calls in interleaved rounds.

    Args:
        calls: The functions to time, by name.
        rounds: Number of rounds.
        each: Number of calls of each function in a round.
        cold: Number of calls at the start of each round that are not counted, because the caches are cold.

    Returns:
        For each name (rounds · (each - cold),) microseconds, in measured order.
    """
    times: dict[Key, list[int]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for number in range(each):
                began = time.perf_counter_ns()
                call()
                took = time.perf_counter_ns() - began
                if number >= cold:
                    times[name].append(took)
    return {name: np.array(found) / 1000 for name, found in times.items()}
