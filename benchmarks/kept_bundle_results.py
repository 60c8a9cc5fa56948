"""The section of RESULTS.md about the bundles in this repository."""

from __future__ import annotations

from typing import Any

from result_text import Document, commands, machine, missing, table

TITLE = "## The bundles that are kept"
USUAL = [
    "python benchmarks/kept_bundles.py --data flickr8k --dense ready/trained/twin --dense flickr8k=ready/flickr8k-trained/dense"
]


def kept_bundles_section(document: Document | None) -> str:
    """Return the section with every bundle's quality against its dense run, bytes and times.

    Without a document, it has the commands to measure them.
    """
    if document is None:
        return "\n\n".join([TITLE, missing("them", USUAL)])
    data, rows = document["data"], document["rows"]
    what = (
        f"Scored on {data['photos']:,} photos of `{data['split']}` of {data['name']}, beam {document['beam']}, "
        f"{rows[0]['scores']['tokenizer']} tokens. Dense: CIDEr-D of the dense run that the bundle is compared with, in torch, "
        "searched with the bundle's own limits. Against dense: the relative change, paired photo by photo, with the 95 % "
        "bootstrap interval. `dense` learned from Flickr8k alone, by likelihood, for less time than the bundles; `twin` is the "
        "packaged decoder unpruned, on the same encoder and through the same last "
        "stages ([how they were made](../docs/ready_model.md#how-it-was-made))."
    )
    quality = table(
        ["", "zeros", "CIDEr-D", "interval", "dense", "against dense", "METEOR", "bad endings", "download, bytes"],
        [_quality(row) for row in rows],
    )
    speed = table(
        ["", "step, µs", "the same in dense int8, µs", "step against dense int8", "caption, ms"],
        [_speed(row) for row in rows],
    )
    turns = "Times, interleaved; medians with the 95 % interval over rounds:"
    return "\n\n".join(
        [TITLE, what, quality, turns, speed, machine(document["environment"]), commands([document["command"]])]
    )


def _quality(row: Document) -> list[str]:
    interval, change = row["cider_d_interval"], row["change"]
    return [
        row["name"],
        f"{1 - row['kept_weights'] / row['prunable_weights']:.2%}",
        f"{row['scores']['cider_d']:.4f}",
        f"{interval['low']:.3f} to {interval['high']:.3f}",
        f"`{row['dense']['name']}`, {row['dense']['scores']['cider_d']:.4f}",
        f"{change['estimate']:+.1%} [{change['low']:+.1%}, {change['high']:+.1%}]",
        "—" if row["scores"]["meteor"] is None else f"{row['scores']['meteor']:.4f}",
        f"{row['health']['bad_ending_share']:.1%}",
        f"{row['bytes']:,}",
    ]


def _speed(row: Document) -> list[str]:
    faster = row["faster"]
    return [
        row["name"],
        _median(row["step_us"], 1, ".0f"),
        _median(row["dense_int8_step_us"], 1, ".0f"),
        "the intervals overlap" if faster is None else _against(faster),
        _median(row["caption_us"], 1000, ".1f"),
    ]


def _against(faster: Any) -> str:
    """Return a ratio above 1 with its interval."""
    low, middle, high = (faster[key] for key in ("low", "estimate", "high"))
    if middle >= 1:
        return f"{middle:.2f}x faster [{low:.2f}, {high:.2f}]"
    return f"{1 / middle:.2f}x slower [{1 / high:.2f}, {1 / low:.2f}]"


def _median(found: Any, scale: float, form: str) -> str:
    low, middle, high = (format(found[key] / scale, form) for key in ("low", "estimate", "high"))
    return f"{middle} [{low}, {high}]"
