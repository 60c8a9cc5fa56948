"""Calls take turns, and only what counts is counted."""

from __future__ import annotations

from capprune_runtime.measure.interleaved import time_interleaved


def test_calls_take_turns_and_the_cold_ones_do_not_count() -> None:
    called: list[str] = []
    found = time_interleaved(
        {"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=2, each=3, cold=1
    )
    assert "".join(called) == "aaabbbaaabbb"
    assert {name: times.shape for name, times in found.items()} == {"a": (4,), "b": (4,)}
    assert all((times > 0).all() for times in found.values())
