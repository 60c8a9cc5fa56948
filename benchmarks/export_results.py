"""The sections of RESULTS.md about exports: their caption quality, and their size compared with the entropy."""

from __future__ import annotations

from typing import Any

from result_text import Document, commands, machine, missing, table


def exports_section(document: Document | None) -> str:
    """Return the section with every export of every run: captions, bytes, parity."""
    title = "## Exports of trained models"
    if document is None:
        return (
            f"{title}\n\n{missing('them', ['python benchmarks/exports.py --data flickr8k --run runs/flickr8k-sparse'])}"
        )
    rows = document["rows"]
    what = (
        f"Flickr8k, split `{document['split']}`, {document['photos']:,} photos, beam {document['beam']}, "
        f"{rows[0]['tokenizer']} tokens. The change of CIDEr-D is relative to the trained model in torch, with the 95 % "
        "interval, paired by photo. The cost of a format is measured on `val` before it is written: where the whole "
        "interval lies below -0.5 %, the worst tensor returns to float32."
    )
    columns = ["run", "export", "CIDEr-D", "change", "decoder, bytes", "bundle, bytes", ".capz, bytes"]
    figures = table(columns, [_figures(row) for row in rows])
    back = [
        f"- {row['run']}, {row['variant']}: {', '.join(row['kept_float'])} stayed in float32."
        for row in rows
        if [name for name in row["kept_float"] if row["forms"].get(name) != "dense_float32"]
    ]
    parity = "Captions that equal torch's, token for token:\n\n" + _parity(rows)
    parts = [
        title,
        what,
        figures,
        "\n".join(back),
        parity,
        machine(document["environment"]),
        commands(document["commands"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _figures(row: Document) -> list[str]:
    change = row["relative_change"]
    return [
        row["run"],
        row["variant"],
        f"{row['cider_d']:.4f}",
        "—" if change is None else f"{change['estimate']:+.1%} [{change['low']:+.1%}, {change['high']:+.1%}]",
        f"{row['decoder_bytes']:,}",
        f"{row['bundle_bytes']:,}",
        f"{row['packed_bytes']:,}",
    ]


def _parity(rows: list[Document]) -> str:
    runtimes = list(dict.fromkeys(name for row in rows for name in row["parity"]))
    return table(
        ["run", "export", *runtimes],
        [
            [
                row["run"],
                row["variant"],
                *(_identical(row["parity"].get(name), exact=row["exact"]) for name in runtimes),
            ]
            for row in rows
        ],
    )


def _identical(parity: Any, *, exact: bool) -> str:
    if parity is None:
        return "—"
    verdict = "" if parity["holds"] or not exact else ", does not hold"
    return f"{parity['identical']:,} of {parity['photos']:,}{verdict}"


def entropy_section(document: Document | None) -> str:
    """Return the section with the sizes of coded weights and their entropy floors."""
    title = "## Packed weights and their entropy"
    command = "python benchmarks/entropy.py --json > benchmarks/results/entropy.json"
    if document is None:
        return f"{title}\n\n{missing('it', [command])}"
    what = (
        "Floor: N·H(kept / N) for the places and kept·H0(values) for the values of every tensor, from masks and values alone. "
        "Packed: bytes in a `.capz`, tables and headers included. Kept: weights that are not zero in the file."
    )
    weights = table(
        ["source", "weights", "kept", "floor, bytes", "packed, bytes", "packed / floor", "bytes per kept weight"],
        [
            [
                row["source"],
                row["weights"],
                f"{row['kept']:,}",
                f"{row['floor_bytes']:,}",
                f"{row['coded_bytes']:,}",
                f"{row['ratio_to_floor']:.4f}",
                f"{row['bytes_per_kept']:.2f}",
            ]
            for row in document["rows"]
        ],
    )
    whole = table(
        [
            "source",
            "weights",
            "biases",
            "graph",
            "vocabulary",
            "decoder file",
            "packed",
            "dense float32 / packed",
            "MB/s",
        ],
        [
            [
                row["source"],
                row["weights"],
                *(_packed(row, part) for part in ("bias", "graph", "vocabulary")),
                f"{row['file_bytes']:,}",
                f"{row['packed_bytes']:,}",
                f"{row['times_smaller_than_dense']:.1f}",
                f"{row['decode_mb_per_s']:.0f}",
            ]
            for row in document["rows"]
        ],
    )
    rest = (
        "The whole decoder. Biases, graph and vocabulary are in packed bytes; MB/s is model file expanded on one core:"
    )
    return "\n\n".join([title, what, weights, rest, whole, machine(document["environment"]), commands([command])])


def _packed(row: Document, part: str) -> str:
    size = row[f"{part}_coded_bytes"]
    return "—" if size is None else f"{size:,}"
