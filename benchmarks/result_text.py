"""Pieces of Markdown that the sections of RESULTS.md share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Document = dict[str, Any]


def missing(what: str, lines: Sequence[str]) -> str:
    """What a section says whose figures are not there."""
    return f"Not measured yet; these commands measure {what}:\n\n{commands(lines)}"


def machine(environment: Document) -> str:
    """What was measured where."""
    cores = f"{environment['cpu_count']} cores"
    load = environment.get("load_when_started")
    if load is not None and load >= 1:
        cores = f"{environment['cpu_count']} shared cores (load {load} when it started, so that ratios count)"
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
