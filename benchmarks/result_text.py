"""Pieces of Markdown that the sections of RESULTS.md share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Document = dict[str, Any]


def missing(what: str, lines: Sequence[str]) -> str:
    """The text of a section whose figures are not there."""
    return f"Not measured yet; these commands measure {what}:\n\n{commands(lines)}"


def machine(environment: Document) -> str:
    """What was measured where."""
    cores = f"{environment['cpu_count']} cores"
    load = environment.get("load_when_started")
    if load is not None and load >= 1:
        cores = f"{environment['cpu_count']} shared cores (load {load} at the start: compare ratios)"
    emulated = " It was emulated: the times mean nothing." if environment["emulated"] else ""
    threads = "one thread" if environment["threads"] == 1 else f"{environment['threads']} threads"
    return (
        f"Machine: {environment['cpu_model']}, {environment['machine']}, {cores}; {environment['runtime']} "
        f"{environment['runtime_version']}, {threads}, Python {environment['python']}.{emulated}"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; every column but the first is aligned to the right."""
    rules = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rules, *rows))


def commands(lines: Sequence[str]) -> str:
    """A block to copy."""
    return "\n".join(["```", *lines, "```"])


def ratio(value: float | None, above: str, below: str, *, digits: int = 2) -> str:
    """A ratio that is never under 1: "1.97x faster", "6.10x larger", or "equal".

    Args:
        value: How many times as small, or as fast; None where it was not measured.
        above: What the first one is where the value is over 1.
        below: What it is otherwise.
        digits: After the point.
    """
    if value is None:
        return "—"
    if abs(value - 1) < 0.005:
        return "equal"
    return f"{value:.{digits}f}x {above}" if value > 1 else f"{1 / value:.{digits}f}x {below}"
