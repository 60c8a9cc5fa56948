"""Markdown helpers for the sections of RESULTS.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Document = dict[str, Any]


def missing(what: str, lines: Sequence[str]) -> str:
    """Return the text of a section without figures."""
    return f"Not measured yet; these commands measure {what}:\n\n{commands(lines)}"


def machine(environment: Document) -> str:
    """Return a description of the machine of a measurement."""
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
    """Return a Markdown table; every column but the first is right-aligned."""
    rules = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rules, *rows))


def commands(lines: Sequence[str]) -> str:
    """Return a code block of commands."""
    return "\n".join(["```", *lines, "```"])


def ratio(value: float | None, above: str, below: str, *, digits: int = 2) -> str:
    """Return a ratio that is at least 1: "1.97x faster", "6.10x larger", or "equal".

    Args:
        value: The ratio of sizes or speeds; None if not measured.
        above: The word for values above 1.
        below: The word for values below 1.
        digits: Digits after the decimal point.
    """
    if value is None:
        return "—"
    if abs(value - 1) < 0.005:
        return "equal"
    return f"{value:.{digits}f}x {above}" if value > 1 else f"{1 / value:.{digits}f}x {below}"
