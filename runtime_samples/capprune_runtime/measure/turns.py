"""Times of calls that take turns: a machine that slows down meanwhile slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)


def time_in_turns(
    calls: Mapping[Key, Callable[[], object]], *, rounds: int, each: int, cold: int = 0
) -> dict[Key, NDArray[np.float64]]:
    """Time every call.

    Args:
        calls: What is timed, by name.
        rounds: How many turns each has.
        each: How many times it is called in a turn.
        cold: How many of these, the first of a turn, are not counted because they find the caches cold.

    Returns:
        For each name (rounds · (each - cold),) microseconds, in the order in which they were measured.
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
