"""Measure trained models on Flickr8k's test split: quality, parity, size, speed, and the cost of training.

    python benchmarks/flickr8k.py --data flickr8k \\
        --dense runs/flickr8k-dense bundles/flickr8k-dense --sparse runs/flickr8k-sparse bundles/flickr8k-sparse

Writes benchmarks/results/flickr8k_dense.json and flickr8k_sparse.json. Figures of a bundle are those of `capprune validate`
with the run as the reference. Figures of training come from the runs' metrics.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from capprune.api.validation import validate_bundle
from capprune.config.reading import load_config
from capprune.data.captions import load_caption_set
from capprune.metrics.health import best_constant_caption
from capprune.training.progress import Lines
from capprune.training.run import CONFIG, LoadedRun, load_run, read_metrics
from capprune.validation.validate import first_photos
from capprune_runtime.atomic import write_text
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.interpreter import available_runtimes
from capprune_runtime.errors import BundleError, CapPruneError

SCHEMA_VERSION = 1
SPLIT, BEAM = "test", 3
RESULTS = Path(__file__).parent / "results"
CONFIGS = Path(__file__).parents[1] / "configs"


def measure(run_folder: Path, bundle_folder: Path, data: Path, *, limit: int | None = None) -> dict[str, Any]:
    """Validate a bundle against the run it came from, and add the facts of the run's training.

    Args:
        run_folder: The trained run, the reference.
        bundle_folder: The bundle exported from it.
        data: Flickr8k.
        limit: Only the first `limit` photos.

    Returns:
        The document.

    Raises:
        BundleError: The bundle was made from another run, or the run has not finished an epoch.
    """
    run, bundle = load_run(run_folder), verify_bundle(bundle_folder)
    _check_origin(run, bundle)
    training = training_facts(run)
    first, *others = available_runtimes()
    results, _ = validate_bundle(
        bundle,
        data,
        SPLIT,
        limit=limit,
        reference=run_folder,
        beam=BEAM,
        runtime=first,
        also=tuple(others),
        progress=Lines(),
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "flickr8k",
        "commands": commands(run, bundle, limit),
        "training": training,
        "constant_caption": constant_caption(data, limit, results.quality.scores.tokenizer),
        "results": results.as_json(),
    }


def training_facts(run: LoadedRun) -> dict[str, Any]:
    """Return the facts of every epoch in metrics.jsonl, and the median of their seconds.

    Raises:
        BundleError: No epoch was finished.
    """
    lines = [line for line in read_metrics(run.folder) if "cider" in line]
    if not lines:
        raise BundleError("this run has not finished an epoch", where=run.folder)
    keys = ("epoch", "cider", "seconds", "sparsity")
    return {
        "name": run.config.name,
        "epochs": run.config.training.epochs,
        "best_epoch": int(run.facts["epoch"]),
        "seconds_per_epoch": statistics.median(float(str(line["seconds"])) for line in lines),
        "validation": [{key: line[key] for key in keys if key in line} for line in lines],  # greedy CIDEr-D
    }


def constant_caption(data: Path, limit: int | None, tokenizer: str) -> dict[str, Any]:
    """Return the training caption with the best score when it is used for every photo, as a baseline."""
    captions = load_caption_set(data)
    photos = first_photos(captions.split(SPLIT), limit)
    training = (caption for photo in captions.split("train") for caption in photo.captions)
    said, scores = best_constant_caption(
        training, {photo.name: photo.captions for photo in photos}, tokenizer=tokenizer
    )
    return {"caption": said, "cider_d": scores.cider_d}


def commands(run: LoadedRun, bundle: Bundle, limit: int | None) -> list[str]:
    """Return the commands that reproduce a document, with the usual names of folders."""
    name = run.config.name
    recipe = CONFIGS / f"{name.replace('-', '_')}.yaml"
    overrides = " ".join(["data.folder=flickr8k", *_overrides(run, recipe)])
    encoder = bundle.manifest.quantisation.encoder
    form = "" if encoder == "float32" else f" --encoder-weights {encoder}"
    option = "--sparse" if run.config.pruning.prunes else "--dense"
    first = "" if limit is None else f" --limit {limit}"
    return [
        f"capprune train configs/{recipe.name} {overrides} --out runs/{name}",
        f"capprune export runs/{name} --target tflite{form} --out bundles/{name}",
        f"python benchmarks/flickr8k.py --data flickr8k {option} runs/{name} bundles/{name}{first}",
    ]


def _overrides(run: LoadedRun, recipe: Path) -> list[str]:
    """Return the settings in which the run's config differs from the recipe, except the data folder."""
    usual = dict(_flat(load_config(recipe).as_tree()))
    return [
        f"{key}={json.dumps(value)}"
        for key, value in _flat(run.config.as_tree())
        if key != "data.folder" and usual.get(key) != value
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _check_origin(run: LoadedRun, bundle: Bundle) -> None:
    """Check that a bundle came from a run: otherwise captions and training facts would be compared wrongly."""
    pruning = bundle.manifest.pruning
    own = (run.config.name, run.kept, run.prunable)
    found = (bundle.manifest.config.get("name"), pruning.kept_weights, pruning.prunable_weights)
    if own != found:
        raise BundleError(
            "this bundle was not made from this run",
            where=f"{bundle.place}, {run.folder / CONFIG}",
            expected="{}, {:,} of {:,} weights".format(*own),
            found="{}, {:,} of {:,} weights".format(*found),
        )


def main(arguments: list[str] | None = None) -> int:
    """Measure the given models; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Flickr8k")
    parser.add_argument("--dense", type=Path, nargs=2, metavar=("RUN", "BUNDLE"))
    parser.add_argument("--sparse", type=Path, nargs=2, metavar=("RUN", "BUNDLE"))
    parser.add_argument("--limit", type=int, help="use only the first N photos of the test split")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON (default benchmarks/results)")
    asked = parser.parse_args(arguments)
    try:
        for name in ("dense", "sparse"):
            if pair := getattr(asked, name):
                run, bundle = pair
                document = measure(run, bundle, asked.data, limit=asked.limit)
                path = asked.out / f"flickr8k_{name}.json"
                write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
                print(path)
    except CapPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
