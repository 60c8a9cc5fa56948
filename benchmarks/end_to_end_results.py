"""The section of RESULTS.md about joint pruning of encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence

from result_text import Document, commands, machine, missing, table

TITLE = "## Encoder and decoder pruned together"
USUAL = {
    "scenes": [
        "capprune data scenes --out scenes --size 128",
        "python benchmarks/end_to_end.py --data scenes",
    ],
    "flickr8k": [
        "python benchmarks/end_to_end.py --data flickr8k --config configs/flickr8k_dense.yaml --scheme C --first 10 --second 4",
    ],
}
SAYS = (
    "The schemes of [docs/encoder_pruning.md](../docs/encoder_pruning.md). The reference is the dense model after the same "
    "second stage, captioned in torch like the others, with 95 % bootstrap intervals over photos. Exported "
    "encoders run dense: only bytes are saved."
)


PRUNED_BOTH = (
    "On Flickr8k one model was pruned in both, its decoder by 97.5 %, the encoder's last blocks and head by 80 %: int8, beam 3, "
    "1,000 photos of `test`, CIDEr-D 0.4595 (0.428 to 0.489), 14.4 % (9.8 to 19.1) below its dense parent, in a packed bundle of "
    "2,166,519 bytes. It is not kept: an encoder of [few bits](../docs/encoder_pruning.md#an-encoder-of-few-bits) takes fewer, "
    "and loses less."
)


def end_to_end_section(documents: dict[str, Document | None]) -> str:
    """Return the section with the table of every data set, or how to measure it."""
    parts = [TITLE, SAYS]
    for name, document in documents.items():
        parts += [PRUNED_BOTH] if name == "flickr8k" else []
        parts.append(missing(f"it on {name}", USUAL[name]) if document is None else _measured(name, document))
    return "\n\n".join(parts)


def _measured(name: str, document: Document) -> str:
    what = (
        f"**{name}**: split `{document['split']}`, {document['photos']:,} photos, beam {document['beam']}, plain tokens, "
        f"one run each."
    )
    return "\n\n".join(
        [
            what,
            table(
                ["", "CIDEr-D", "against dense", "decoder zeros", "encoder zeros", *_sizes(document), "encode, µs p50"],
                [_row(one) for one in document["rows"]],
            ),
            table(
                ["stage", "CIDEr-D on val", "minutes", "CPU minutes", "peak MB"],
                [_stage(one) for one in _stages(document["rows"])],
            ),
            machine(document["environment"]),
            commands([document["command"], *(one["command"] for one in _stages(document["rows"]))]),
        ]
    )


def _sizes(document: Document) -> list[str]:
    return [f"{form}, {kind}" for form in document["rows"][0]["files"] for kind in ("bundle bytes", "packed bytes")]


def _row(one: Document) -> list[str]:
    change = one["relative_change"]
    told = f"{change['estimate']:+.1%} [{change['low']:+.1%}, {change['high']:+.1%}]" if change else "—"
    sizes = [f"{files[key]:,}" for files in one["files"].values() for key in ("bundle_bytes", "packed_bytes")]
    zeros = [f"{one[key]:.1%}" for key in ("decoder_sparsity", "encoder_sparsity")]
    encode = f"{one['files']['float32']['encode_us']:,.0f}"
    return [one["scheme"], f"{one['cider_d']:.3f}", "" if one["scheme"] == "dense" else told, *zeros, *sizes, encode]


def _stages(rows: Sequence[Document]) -> list[Document]:
    return list({stage["run"]: stage for one in rows for stage in one["stages"]}.values())


def _stage(one: Document) -> list[str]:
    numbers = [f"{one['seconds'] / 60:.1f}", f"{one['cpu_seconds'] / 60:.1f}", f"{one['peak_bytes'] / 1e6:,.0f}"]
    return [one["run"], f"{one['cider_d_val']:.3f}", *numbers]
