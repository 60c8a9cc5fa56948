"""The section of RESULTS.md about the speed of training."""

from __future__ import annotations

from result_text import Document, commands, machine, missing, table


def training_section(document: Document | None) -> str:
    """Return the section with training speed and memory of capprune, dense and pruned, and a plain implementation."""
    command = "python benchmarks/training_speed.py --data flickr8k --json > benchmarks/results/training_speed.json"
    title = "## Training speed"
    if document is None:
        return f"{title}\n\n{missing('it', [command])}"
    settings = document["settings"]
    what = (
        f"A Soft-Attention LSTM {settings['width']} wide, {settings['regions']} regions, captions of Flickr8k, training "
        "steps only: ours dense and with a supermask, in batches of 10 and of 20 photos with five captions each, and "
        "a plain implementation (benchmarks/plain_training.py: batches of 50 pairs padded to the longest, features projected "
        f"for every pair, an LSTMCell in a loop). {settings['rounds']} interleaved rounds. Time / dense is the time per "
        "caption over that of ours dense in the same round, type and batch (of 50 captions for the plain one). Memory is the "
        "growth of the peak in three steps."
    )
    parts = [title, what, _figures(document["rows"]), _ratios(document["rows"])]
    return "\n\n".join([*parts, machine(document["environment"]), commands([command])])


def _figures(rows: list[Document]) -> str:
    return table(
        [
            "",
            "captions per batch",
            "type",
            "captions/s p10",
            "p50",
            "p90",
            "time / dense p10",
            "p50",
            "p90",
            "peak MB",
        ],
        [
            [
                row["kind"],
                str(row["captions_per_batch"]),
                row["dtype"],
                *(f"{row['captions_per_second'][key]:,.0f}" for key in ("p10", "p50", "p90")),
                *(f"{row['time_beside_dense'][key]:.2f}" for key in ("p10", "p50", "p90")),
                f"{row['peak_mb']:,.0f}",
            ]
            for row in rows
        ],
    )


def _ratios(rows: list[Document]) -> str:
    found = {(row["kind"], row["captions_per_batch"], row["dtype"]): row for row in rows}
    sizes = sorted({size for kind, size, _ in found if kind == "dense"})
    lines = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        plain = next(row for row in rows if (row["kind"], row["dtype"]) == ("plain", dtype))
        for size in sizes:
            dense, pruned = (found[kind, size, dtype] for kind in ("dense", "supermask"))
            faster = (
                row["captions_per_second"]["p50"] / plain["captions_per_second"]["p50"] for row in (dense, pruned)
            )
            memory = pruned["peak_mb"] / dense["peak_mb"]
            lines.append(
                f"- {dtype}, {size} captions per batch: {next(faster):.1f}x faster than the plain one, with a supermask "
                f"{next(faster):.1f}x; a pruned step takes {pruned['time_beside_dense']['p50']:.2f}x the time and {memory:.1f}x "
                f"the memory of a dense one."
            )
    return "\n".join(lines)
