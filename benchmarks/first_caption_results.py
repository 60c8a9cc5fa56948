"""The section of RESULTS.md about the caption of one photo, cold and warm."""

from __future__ import annotations

from typing import Any

from result_text import Document, commands, machine, missing, table

TITLE = "## The first caption"
USUAL = ["python benchmarks/first_caption.py photo.jpg --data flickr8k --json"]
PARTS = ("encoder", "steps", "host")


def first_caption_section(document: Document | None) -> str:
    """Return the section with download size, cold start and warm captions of the ready run's bundles and their dense baselines.

    Without a document, it has the commands to measure them.
    """
    if document is None:
        return "\n\n".join([TITLE, missing("it", USUAL)])
    what = (
        f"`capprune caption` of one photo at beam {document['beam']}. Cold: a new process from start to end, p50 (p10 to "
        "p90), and its peak memory. Warm: a caption in a process that has the bundle open, the median with its 95 % bootstrap "
        "interval over rounds. Download: the packed file, or the folder without golden photos."
    )
    rows = document["rows"]
    columns = ["", "runs in", "download, bytes", "cold, s", "peak, MB", "warm caption, ms"]
    tables = [table(columns, [_row(one) for one in rows])]
    if all("parts_ms" in one for one in rows):
        parts = (
            "A warm caption, ms: encoder + steps + host = total, medians with p10 to p90, and with the interval of the total. "
            "The host is the search and all other code outside the interpreter. The last column compares a baseline's total with "
            "that of the bundle it was made from: the default export, or the blocks variant."
        )
        columns = ["", *PARTS, "total", "calls of the step", "its bundle is"]
        tables += [parts, table(columns, [_parts(one) for one in rows])]
    return "\n\n".join([TITLE, what, *tables, machine(document["environment"]), commands([document["command"]])])


def _row(one: Document) -> list[str]:
    cold = one["cold_seconds"]
    return [
        one["name"],
        one["runtime"],
        f"{one['download_bytes']:,}",
        f"{cold['p50']:.2f} ({cold['p10']:.2f} to {cold['p90']:.2f})",
        f"{one['peak_mb']:.0f}",
        _total(one),
    ]


def _parts(one: Document) -> list[str]:
    cells = [f"{part['p50']:.1f} ({part['p10']:.1f} to {part['p90']:.1f})" for part in map(one["parts_ms"].get, PARTS)]
    return [one["name"], *cells, _total(one), f"{one['steps']:.0f}", _other(one)]


def _total(one: Document) -> str:
    warm = one["warm_caption_ms"]
    return f"{warm['estimate']:.1f} [{warm['low']:.1f}, {warm['high']:.1f}]"


def _other(one: Document) -> str:
    """Return the speed-up of the bundle under test over this baseline."""
    if one["against"] is None:
        return ""
    if one["faster"] is None:
        return str(one["reason"])
    faster: Any = one["faster"]
    low, middle, high = (faster[key] for key in ("low", "estimate", "high"))
    if middle >= 1:
        return f"{middle:.2f}x faster [{low:.2f}, {high:.2f}]"
    return f"{1 / middle:.2f}x slower [{1 / high:.2f}, {1 / low:.2f}]"
