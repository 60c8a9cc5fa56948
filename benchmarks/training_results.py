"""The section of RESULTS.md about the speed of training."""

from __future__ import annotations

from result_text import Document, commands, machine, missing, table


def training_section(document: Document | None) -> str:
    """Captions a second and memory of ours, dense and pruned, and of a plain implementation."""
    command = "python benchmarks/training_speed.py --data flickr8k --json > benchmarks/results/training_speed.json"
    title = "## Training speed"
    if document is None:
        return f"{title}\n\n{missing('it', [command])}"
    settings = document["settings"]
    what = (
        f"A Soft-Attention LSTM {settings['width']} wide, {settings['regions']} regions, batches of 50 captions of "
        "Flickr8k, one training step after the other: ours dense, ours with a supermask, and a plain implementation "
        "(benchmarks/plain_training.py: pairs padded to the longest, features projected for every pair, an LSTMCell in a "
        f"loop). {settings['rounds']} rounds in turns. Time is that of a caption beside ours dense of the same round and type; "
        "memory is what three steps add at the peak of a process."
    )
    parts = [title, what, _figures(document["rows"]), _ratios(document["rows"])]
    return "\n\n".join([*parts, machine(document["environment"]), commands([command])])


def _figures(rows: list[Document]) -> str:
    return table(
        ["", "type", "captions/s p10", "p50", "p90", "time beside dense p10", "p50", "p90", "peak MB"],
        [
            [
                row["kind"],
                row["dtype"],
                *(f"{row['captions_per_second'][key]:,.0f}" for key in ("p10", "p50", "p90")),
                *(f"{row['time_beside_dense'][key]:.2f}" for key in ("p10", "p50", "p90")),
                f"{row['peak_mb']:,.0f}",
            ]
            for row in rows
        ],
    )


def _ratios(rows: list[Document]) -> str:
    found = {(row["kind"], row["dtype"]): row for row in rows}
    lines = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        dense, pruned, plain = (found[kind, dtype] for kind in ("dense", "supermask", "plain"))
        faster = dense["captions_per_second"]["p50"] / plain["captions_per_second"]["p50"]
        memory = pruned["peak_mb"] / dense["peak_mb"]
        lines.append(
            f"In {dtype} ours trains {faster:.1f} times the captions a second of the plain one; a pruned step takes "
            f"{pruned['time_beside_dense']['p50']:.2f} times the time and {memory:.1f} times the memory of a dense one."
        )
    fast, slow = found.get(("dense", "bfloat16")), found.get(("plain", "float32"))
    if fast and slow:
        ratio = fast["captions_per_second"]["p50"] / slow["captions_per_second"]["p50"]
        lines.append(f"Ours in bfloat16 beside the plain one in float32: {ratio:.1f} times.")
    return " ".join(lines)
