"""Measure how well a bundle tells familiar photos from others, and what its confidence says about its captions.

    python benchmarks/familiarity.py --data flickr8k --other coco_small --json > familiarity.json

Photos of --data `test` are of the known kind, those of --other `val` are not. Drawn images (`capprune.data.non_photos`)
are no photos; their seed is not that of the choice. The limits are the bundle's own. For a bundle without them they are
chosen on --data `val`, as `capprune validate --record` does, and the bundle is not changed. Captions are scored with the
references of their own data set, PTB tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune.data.captions import CaptionedPhoto, load_caption_set
from capprune.data.inputs import read_all
from capprune.data.non_photos import non_photos
from capprune.metrics.intervals import CONFIDENCE, RESAMPLES, Interval
from capprune.metrics.scores import score
from capprune.ready import ready_bundle
from capprune.tables import table
from capprune.validation.familiarity import Looked, choose_familiarity, confidences, pooled_count
from capprune_runtime.bundle.familiarity import KNOWN, SURE, Familiarity, familiarity_of
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.confidence import confidence_of, mean_log_probability
from printed import print_measured

SCHEMA_VERSION = 1
SEED = "benchmark"
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
WRONG = 0.1  # a caption of a lower CIDEr-D has little to do with its photo

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """Captioned images: pooled channels and log-probabilities, and CIDEr-D of the captions if there are references."""

    looked: Looked
    cider_d: Scores | None = None


def measure(bundle: Bundle, data: Path, other: Path, of_each_kind: int, limit: int | None) -> dict[str, Any]:
    """Return the document that `--json` prints.

    Args:
        bundle: A verified bundle.
        data: Data folder of the known kind.
        other: Data folder of another kind.
        of_each_kind: Drawn images of each kind.
        limit: Use only the first photos of each split.
    """
    captioner = Captioner(bundle)
    chosen, low_below = _chosen(captioner, data, limit), confidence_of(bundle)
    known, unknown = (
        caption_split(captioner, folder, split, limit) for folder, split in ((data, "test"), (other, "val"))
    )
    drawn = {
        kind: Seen(look(captioner, images)[0])
        for kind, images in non_photos(of_each_kind, SEED, bundle.manifest.photo_size).items()
    }
    everything = {f"{data.name} test": known, f"{other.name} val": unknown, **drawn}
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "familiarity",
        "bundle": bundle.place.name,
        "auroc": {
            "confidence": auroc_interval(
                confidences(chosen, unknown.looked), confidences(chosen, known.looked)
            ).as_json(),
            "log_probability": auroc_interval(unknown.looked.spoken, known.looked.spoken).as_json(),
        },
        "marked": {name: marked(chosen, low_below, one) for name, one in everything.items()},
        "drawn_marked": marked(chosen, low_below, together(list(drawn.values()))),
        "risk": {
            name: {
                "confidence": risk(confidences(chosen, one.looked), one.cider_d),
                "log_probability": risk(one.looked.spoken, one.cider_d),
            }
            for name, one in (("both", together([known, unknown])), *list(everything.items())[:2])
            if one.cider_d is not None
        },
    }


def auroc(low: Scores, high: Scores) -> float:
    """Return the probability that a random value of `high` is above one of `low`; ties count half."""
    values = np.concatenate([low, high])
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # from 1, mean rank of ties
    return float((ranks[len(low) :].sum() - len(high) * (len(high) + 1) / 2) / (len(low) * len(high)))


def auroc_interval(low: Scores, high: Scores) -> Interval:
    """Return the AUROC with its percentile bootstrap interval over both sets of photos."""
    chance = np.random.default_rng(0)
    draws = [auroc(chance.choice(low, len(low)), chance.choice(high, len(high))) for _ in range(RESAMPLES)]
    below, above = np.quantile(draws, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)).tolist()
    return Interval(auroc(low, high), below, above)


def risk(order: Scores, cider_d: Scores) -> list[dict[str, float]]:
    """Return mean CIDEr-D and the share of wrong captions among the photos of highest confidence, by coverage."""
    ranked = cider_d[np.argsort(-order, kind="stable")]
    rows = []
    for coverage in COVERAGES:
        kept = ranked[: max(1, round(coverage * len(ranked)))]
        rows.append({"coverage": coverage, "cider_d": float(kept.mean()), "wrong": float(np.mean(kept < WRONG))})
    return rows


def _chosen(captioner: Captioner, data: Path, limit: int | None) -> Familiarity:
    bundle = captioner.bundle
    recorded = familiarity_of(bundle.files, bundle.manifest.interface, bundle.place)
    if recorded is not None:
        return recorded
    photos = load_caption_set(data).split("val")[:limit]
    print(f"choosing limits on {len(photos)} val photos", file=sys.stderr)
    inputs = read_all(data, [photo.name for photo in photos], bundle.manifest.preprocessing)
    said = {photo.name: mean_log_probability(captioner.caption(one)) for photo, one in zip(photos, inputs, strict=True)}
    found = choose_familiarity(bundle, data, said, split="val")
    if isinstance(found, str):
        raise SystemExit(f"no limits can be chosen: {found}")
    return found.chosen


def caption_split(captioner: Captioner, folder: Path, split: str, limit: int | None) -> Seen:
    photos: Sequence[CaptionedPhoto] = sorted(load_caption_set(folder).split(split)[:limit], key=lambda one: one.name)
    print(f"captioning {len(photos)} {split} photos of {folder.name}", file=sys.stderr)
    inputs = read_all(folder, [photo.name for photo in photos], captioner.bundle.manifest.preprocessing)
    looked, texts = look(captioner, inputs)
    people = {photo.name: list(photo.captions) for photo in photos}
    said = {photo.name: text for photo, text in zip(photos, texts, strict=True)}
    return Seen(looked, np.array(score(people, said, meteor=False).per_photo_cider))


def look(captioner: Captioner, images: Any) -> tuple[Looked, list[str]]:
    pooled, spoken, texts = [], [], []
    for image in images:
        caption = captioner.caption(image)
        pooled.append(captioner.pooled(image, pooled_count(captioner.bundle)))
        spoken.append(mean_log_probability(caption))
        texts.append(caption.text)
    return Looked(np.array(pooled), np.array(spoken)), texts


def together(seen: Sequence[Seen]) -> Seen:
    scored = [one.cider_d for one in seen if one.cider_d is not None]
    pooled, spoken = (
        np.concatenate(parts) for parts in zip(*((s.looked.pooled, s.looked.spoken) for s in seen), strict=True)
    )
    return Seen(Looked(pooled, spoken), np.concatenate(scored) if len(scored) == len(seen) else None)


def marked(chosen: Familiarity, low_below: float | None, seen: Seen) -> dict[str, float]:
    """Return the shares that are marked in either way, and the share of wrong captions among all and among the unmarked."""
    confidence = confidences(chosen, seen.looked)
    unfamiliar = confidence < KNOWN
    unlikely = seen.looked.spoken < (-np.inf if low_below is None else low_below)
    unsure = ~unfamiliar & ((confidence < SURE) | unlikely)
    plain = ~unfamiliar & ~unsure
    shares = {"photos": len(unfamiliar), "unfamiliar": float(unfamiliar.mean()), "not_sure": float(unsure.mean())}
    if seen.cider_d is None:
        return shares
    scored = {"wrong_among_unmarked": float(np.mean(seen.cider_d[plain] < WRONG)) if plain.any() else 0.0}
    return {**shares, **scored, "wrong": float(np.mean(seen.cider_d < WRONG))}


def show(document: Mapping[str, Any]) -> None:
    """Print the tables for people."""
    lines = [
        [name, str(row["photos"]), f"{row['unfamiliar']:.1%}", f"{row['not_sure']:.1%}"]
        for name, row in document["marked"].items()
    ]
    table("marked", ["photos of", "count", "unfamiliar", "not sure"], lines)
    areas = [f"{one['estimate']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in document["auroc"].values()]
    note = f"AUROC of known photos against others: {areas[0]}, by log-probability alone {areas[1]}"
    rows = [
        [f"{name}, by {by}", *(f"{row['cider_d']:.3f} ({row['wrong']:.0%})" for row in curve)]
        for name, both in document["risk"].items()
        for by, curve in both.items()
    ]
    columns = ["CIDEr-D (wrong captions) at coverage", *(f"{one:.0%}" for one in COVERAGES)]
    table("risk against coverage", columns, rows, note)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the package's own by default")
    parser.add_argument("--data", type=Path, required=True, help="data folder of the known kind")
    parser.add_argument("--other", type=Path, required=True, help="data folder of another kind")
    parser.add_argument("--of-each-kind", type=int, default=50, help="drawn images of each kind (50)")
    parser.add_argument("--limit", type=int, help="use only the first photos of each split")
    parser.add_argument("--json", action="store_true", help="print the document")
    options = parser.parse_args(arguments)

    def measured() -> dict[str, Any]:
        bundle = verify_bundle(options.bundle or ready_bundle())
        return measure(bundle, options.data, options.other, options.of_each_kind, options.limit)

    print_measured(measured, show, as_json=options.json)


if __name__ == "__main__":
    main()
