"""The section of RESULTS.md about the first caption of a new user."""

from __future__ import annotations

from result_text import Document, commands, machine, missing, table

TITLE = "## The first caption"
USUAL = ["python benchmarks/first_caption.py photo.jpg --dense ready_model/runs/dense"]


def first_caption_section(document: Document | None) -> str:
    """Return the section with download size, cold and warm times of the packaged bundle and its dense parent.

    Without a document, it has the commands to measure them.
    """
    if document is None:
        return "\n\n".join([TITLE, missing("it", USUAL)])
    what = (
        f"`capprune caption` of one photo at beam {document['beam']}. Cold: a new process from start to end, p50 (p10 to "
        "p90), and its peak memory. Warm: a caption in a process that has the bundle open, the median with its 95 % bootstrap "
        "interval over rounds. Download: the packed file, or the folder without golden photos."
    )
    columns = ["", "runs in", "download, bytes", "cold, s", "peak, MB", "warm caption, ms"]
    rows = [_row(one) for one in document["rows"]]
    return "\n\n".join(
        [TITLE, what, table(columns, rows), machine(document["environment"]), commands([document["command"]])]
    )


def _row(one: Document) -> list[str]:
    cold, warm = one["cold_seconds"], one["warm_caption_ms"]
    return [
        one["name"],
        one["runtime"],
        f"{one['download_bytes']:,}",
        f"{cold['p50']:.2f} ({cold['p10']:.2f} to {cold['p90']:.2f})",
        f"{one['peak_mb']:.0f}",
        f"{warm['estimate']:.1f} [{warm['low']:.1f}, {warm['high']:.1f}]",
    ]
