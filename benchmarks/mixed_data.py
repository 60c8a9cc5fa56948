"""Measure what each source adds to a mixed training: the same small decoder on one data set, and with others beside it.

    python benchmarks/mixed_data.py --data flickr8k --other coco_small --work runs/mixed --json > mixed_data.json

Images of `--other` whose captions were generated have a `confidence`; the others are by people. Every run has the same
number of steps, so another source takes the place of photos of the first.
All are exported in float32 and validated on val of both (beam 3). Runs are kept in `--work`, and the same command resumes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import capprune
from capprune.config.data import DataConfig
from capprune.data.sources import load_sources
from capprune.tables import table
from capprune_runtime.atomic import write_text
from printed import print_measured

SCHEMA_VERSION = 1
STEPS = 1500
BATCH = 20  # photos, with five captions each
WIDTH = 256
HUMAN_WEIGHT = 3
SHARE = 0.75

Rows = Mapping[str, list[dict[str, Any]]]


def rows_of(other: Path) -> Rows:
    """Return the sources beside the first data set, by the name of the row."""
    people = {"folder": str(other), "captions": "human", "weight": HUMAN_WEIGHT}
    labels = {"folder": str(other), "captions": "generated"}
    confident = {**labels, "confident_share": SHARE}
    return {
        "alone": [],
        "human captions": [people],
        "generated captions": [labels],
        f"generated captions, the most confident {SHARE:.0%}": [confident],
        "generated captions, weighted by confidence": [{**labels, "by_confidence": True}],
        f"human and the most confident {SHARE:.0%}": [people, confident],
    }


def config_of(data: Path, sources: list[dict[str, Any]], *, steps: int, size: int, seed: int) -> dict[str, Any]:
    """Return the config of a row; the number of epochs comes nearest to `steps`."""
    section = {"folder": str(data), "minimum_count": 5, "sources": sources}
    photos = sum(sum(source.train(None)[1]) for source in load_sources(DataConfig.model_validate(section)))
    return {
        "name": "mixed",
        "data": section,
        "encoder": {"size": size, "grid": 4 if size >= 128 else None},
        "decoder": {"embedding": WIDTH // 2, "hidden": WIDTH, "attention": WIDTH, "context": WIDTH},
        "training": {
            "epochs": max(1, round(steps / math.ceil(photos / BATCH))),
            "photos_per_batch": BATCH,
            "learning_rate": 3e-3,
            "warmup": 0.05,
            "precision": "bfloat16" if size >= 128 else "float32",
            "validation_photos": 300,
            "seed": seed,
        },
    }


def measure(
    data: Path,
    other: Path,
    work: Path,
    cache: Path | None,
    *,
    steps: int = STEPS,
    size: int = 224,
    seed: int = 1,
    limit: int = 500,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and score a run for each row.

    Args:
        data: The first data set.
        other: The other one, with human and generated captions; see the top of this file.
        work: Folder for runs and bundles.
        cache: Folder of feature caches; by default the usual one.
        steps: Steps of every run, to the nearest epoch.
        size: Side of the photos, pixels.
        seed: Seed of every run.
        limit: Photos of each val split that are scored.
        only: Names of rows that are measured; all by default.

    Returns:
        The document that `--json` prints.

    Raises:
        CapPruneError: The data cannot be read, or a run fails.
    """
    rows = []
    for number, (name, sources) in enumerate(rows_of(other).items()):
        if only and name not in only:
            continue
        config = config_of(data, sources, steps=steps, size=size, seed=seed)
        settings = hashlib.sha256(json.dumps([config, limit]).encode()).hexdigest()[:8]
        out = work / f"row-{number}-{settings}"  # other steps or another seed are another run
        kept = out.with_suffix(".json")
        if not kept.is_file():
            write_text(kept, json.dumps(_row(name, config, (data, other), out, cache, limit)))
        rows.append(json.loads(kept.read_bytes()))
        print(f"{name}: {rows[-1]['cider_d']}", file=sys.stderr)
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "mixed_data",
        "data": data.name,
        "other": other.name,
        "seed": seed,
        "rows": rows,
    }


def _row(
    name: str, config: Mapping[str, Any], scored: Sequence[Path], out: Path, cache: Path | None, limit: int
) -> dict[str, Any]:
    run = capprune.train(config, out=out, cache=cache, progress=capprune.Lines())
    with tempfile.TemporaryDirectory() as folder:
        bundle = run.export(Path(folder) / "bundle", weights="float32")
        results = {
            place.name: bundle.validate(place, split="val", limit=limit, beam=3, progress=capprune.Lines()).as_json()
            for place in scored
        }
    intervals = {place: result["quality"]["cider_d_interval"] for place, result in results.items()}
    return {
        "beside": name,
        "epochs": config["training"]["epochs"],
        "cider_d": {
            place: {key: round(interval[key], 4) for key in ("estimate", "low", "high")}
            for place, interval in intervals.items()
        },
        "distinct_words": {place: result["quality"]["health"]["distinct_words"] for place, result in results.items()},
    }


def main() -> None:
    """Train the runs and print their scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="rows to measure")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def measured() -> dict[str, Any]:
        return measure(
            options.data,
            options.other,
            options.work,
            options.cache,
            steps=options.steps,
            seed=options.seed,
            only=options.only,
        )

    print_measured(measured, show, as_json=options.json)


def show(document: Mapping[str, Any]) -> None:
    """Print the scores of each row as a table."""
    places = list(document["rows"][0]["cider_d"])
    rows = [
        [row["beside"], str(row["epochs"]), *(f"{row['cider_d'][one]['estimate']:.3f}" for one in places)]
        for row in document["rows"]
    ]
    table("CIDEr-D on val, beam 3", ["beside it", "epochs", *places], rows)


if __name__ == "__main__":
    main()
