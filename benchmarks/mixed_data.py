"""Measure what each source adds to a mixed training: the same small decoder on one data set, and with others beside it.

    python benchmarks/mixed_data.py --data flickr8k --other coco_small --work runs/mixed --json > mixed_data.json

`--other` is in Karpathy's layout. Its images have `kind`: `human` for captions by people, and another for generated ones,
which have a `confidence`. Every run has the same number of steps, so another source takes the place of photos of the first.
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
from capprune.data.captions import load_caption_set
from capprune.tables import table
from capprune_runtime.atomic import write_text
from capprune_runtime.errors import CapPruneError, DataError

SCHEMA_VERSION = 1
STEPS = 1500
BATCH = 20  # photos, with five captions each
WIDTH = 256
HUMAN_WEIGHT = 3
SHARE = 0.75

Rows = Mapping[str, list[dict[str, Any]]]


def rows_of(human: Path, generated: Path) -> Rows:
    """Return the sources beside the first data set, by the name of the row."""
    people = {"folder": str(human), "weight": HUMAN_WEIGHT}
    labels = {"folder": str(generated)}
    confident = {**labels, "confident_share": SHARE}
    return {
        "alone": [],
        "human captions": [people],
        "generated captions": [labels],
        f"generated captions, the most confident {SHARE:.0%}": [confident],
        "generated captions, weighted by confidence": [{**labels, "by_confidence": True}],
        f"human and the most confident {SHARE:.0%}": [people, confident],
    }


def split_by_kind(other: Path, work: Path) -> tuple[Path, Path]:
    """Make a data set of the images with captions by people, and one of the rest; photos are linked.

    Raises:
        DataError: `other` has no JSON file in Karpathy's layout with `kind`, or none of a kind.
    """
    found = [path for path in sorted(other.glob("dataset*.json")) if path.is_file()]
    if len(found) != 1:
        raise DataError("there has to be one file", where=other / "dataset*.json", expected=1, found=len(found))
    document = json.loads(found[0].read_bytes())
    parts: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for image in document["images"]:
        parts[image.get("kind") == "human"].append(image)
    folders = []
    for name, images in (("human", parts[True]), ("generated", parts[False])):
        if not images:
            raise DataError(
                f"there are no images with {name} captions", where=found[0], expected="kind: human and others"
            )
        folder = work / "data" / f"{other.name}_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        for place in other.iterdir():
            link = folder / place.name
            if place.suffix != ".json" and not link.is_symlink():
                link.symlink_to(place.resolve())
        write_text(folder / f"dataset_{folder.name}.json", json.dumps({**document, "images": images}))
        folders.append(folder)
    return folders[0], folders[1]


def config_of(data: Path, sources: list[dict[str, Any]], *, steps: int, size: int, seed: int) -> dict[str, Any]:
    """Return the config of a row; the number of epochs comes nearest to `steps`."""
    photos = 0.0
    for source in ({"folder": str(data)}, *sources):
        train = len(load_caption_set(Path(source["folder"])).split("train"))
        photos += train * source.get("confident_share", 1.0) * source.get("weight", 1)
    return {
        "name": "mixed",
        "data": {"folder": str(data), "minimum_count": 5, "sources": sources},
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
        work: Folder for data, runs and bundles.
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
    human, generated = split_by_kind(other, work)
    rows = []
    for number, (name, sources) in enumerate(rows_of(human, generated).items()):
        if only and name not in only:
            continue
        config = config_of(data, sources, steps=steps, size=size, seed=seed)
        settings = hashlib.sha256(json.dumps([config, limit]).encode()).hexdigest()[:8]
        out = work / f"row-{number}-{settings}"  # other steps or another seed are another run
        kept = out.with_suffix(".json")
        if not kept.is_file():
            write_text(kept, json.dumps(_row(name, config, (data, human), out, cache, limit)))
        rows.append(json.loads(kept.read_bytes()))
        print(f"{name}: {rows[-1]['cider_d']}", file=sys.stderr)
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "mixed_data",
        "data": data.name,
        "other": human.name,
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
    try:
        document = measure(
            options.data,
            options.other,
            options.work,
            options.cache,
            steps=options.steps,
            seed=options.seed,
            only=options.only,
        )
    except CapPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    if options.json:
        print(json.dumps(document, indent=2))
        return
    places = list(document["rows"][0]["cider_d"])
    rows = [
        [row["beside"], str(row["epochs"]), *(f"{row['cider_d'][one]['estimate']:.3f}" for one in places)]
        for row in document["rows"]
    ]
    table("CIDEr-D on val, beam 3", ["beside it", "epochs", *places], rows)


if __name__ == "__main__":
    main()
