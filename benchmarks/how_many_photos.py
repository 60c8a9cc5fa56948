"""Measure CIDEr-D on Flickr8k's val after training on the first 250 to 6,000 photos.

    python benchmarks/how_many_photos.py --data flickr8k --runs runs/how_many --json > benchmarks/results/how_many_photos.json

Every run is a small Soft-Attention LSTM with a frozen encoder whose features are computed once. All runs are trained for the
same number of steps on the first photos of train, with a vocabulary of their captions, so fewer photos are used more often.
The best epoch is chosen on val, where all runs are scored on the same photos. Runs are kept in `--runs`, and the same command
resumes after an interruption.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.data.cache_folder import default_cache
from capprune.data.captions import CaptionedPhoto, load_caption_set
from capprune.data.features import Features, cached_features
from capprune.data.photos import open_photos
from capprune.data.vocabulary import build_vocabulary, encode
from capprune.metrics.scores import cider_d
from capprune.models.caption_model import FeatureExtractor, GridEncoder
from capprune.training.loop import Trainer
from capprune.training.outcome import Split
from capprune.training.progress import Lines
from capprune.training.start import start_network
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import CapPruneError
from printed import print_measured

SCHEMA_VERSION = 1
PHOTOS = (250, 500, 1000, 2000, 4000, 6000)
BATCH = 20  # photos, with five captions each
STEPS = 1500  # 5 epochs of 6,000 photos
MOST_EPOCHS = 40  # of few photos; longer runs only overfit
VALIDATION = 500  # photos of val for choosing and scoring the epoch
WIDTH = 256


def config_of(data: Path, photos: int, *, steps: int, size: int, seed: int, validation: int) -> RunConfig:
    """Return the config of a run on `photos` photos."""
    epochs = min(MOST_EPOCHS, max(1, round(steps / math.ceil(photos / BATCH))))
    return parse_config(
        {
            "name": f"photos-{photos}-{seed}",
            "data": {"folder": str(data), "minimum_count": 5 if photos >= 1000 else 2},
            "encoder": {"size": size, "grid": 4 if size >= 128 else None},
            "decoder": {"embedding": WIDTH // 2, "hidden": WIDTH, "attention": WIDTH, "context": WIDTH},
            "training": {
                "epochs": epochs,
                "photos_per_batch": BATCH,
                "learning_rate": 3e-3,
                "warmup": 0.05,
                "precision": "bfloat16" if size >= 128 else "float32",
                "validation_photos": validation,
                "seed": seed,
            },
        }
    )


def measure(
    data: Path,
    counts: Sequence[int],
    seeds: Sequence[int],
    cache: Path,
    folder: Path,
    *,
    steps: int = STEPS,
    size: int = 224,
    validation: int = VALIDATION,
) -> dict[str, Any]:
    """Train a run for each number of photos and each seed.

    Args:
        data: Flickr8k, or another data set with train and val.
        counts: Numbers of photos of train.
        seeds: Seeds of the runs; the first seed is run on every number of photos before the second.
        cache: Folder of feature caches.
        folder: Folder of the runs; finished ones are not trained again.
        steps: Steps of every run, as far as `MOST_EPOCHS` allows.
        size: Side of the photos, pixels.
        validation: Number of photos of val.

    Returns:
        The document that `--json` prints.

    Raises:
        CapPruneError: The data cannot be read, or has fewer photos.
    """
    captions = load_caption_set(data)
    train, val = captions.split("train"), captions.split("val")[:validation]
    if max(counts) > len(train):
        raise CapPruneError("there are too few photos", where=data, expected=max(counts), found=len(train))
    shown = {"train": _features(data, train[: max(counts)], size, cache), "val": _features(data, val, size, cache)}
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
    for seed in seeds:
        for count in counts:
            config = config_of(data, count, steps=steps, size=size, seed=seed, validation=validation)
            runs[count].append(_train(config, folder / config.name, train[:count], val, shown))
            print(f"{count:,} photos, seed {seed}: CIDEr-D {runs[count][-1]['cider_d']:.3f}", file=sys.stderr)
    rows = [
        {"photos": count, "cider_d": round(mean(run["cider_d"] for run in own), 4), "runs": own}
        for count, own in runs.items()
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "how_many_photos",
        "data": captions.name,
        "val_photos": len(val),
        "steps": steps,
        "rows": rows,
    }


def _features(data: Path, photos: Sequence[CaptionedPhoto], size: int, cache: Path) -> Features:
    config = config_of(data, 1, steps=1, size=size, seed=1, validation=1)
    encoder = FeatureExtractor(GridEncoder(config.encoder, start_network(config)))
    with open_photos(data) as store, Lines().bar("features") as tell:
        return cached_features(
            store, [photo.name for photo in photos], encoder=encoder, cache=cache, batch=4, progress=tell
        )


def _train(
    config: RunConfig,
    folder: Path,
    train: Sequence[CaptionedPhoto],
    val: Sequence[CaptionedPhoto],
    shown: Mapping[str, Features],
) -> dict[str, Any]:
    vocabulary = build_vocabulary(
        (caption for photo in train for caption in photo.captions), minimum_count=config.data.minimum_count
    )
    human = {photo.name: photo.captions for photo in val}
    outcome = Trainer(
        config,
        folder,
        vocabulary=vocabulary,
        train=_split(train, shown["train"], vocabulary, config),
        validation=_split(val, shown["val"], vocabulary, config),
        quality=lambda said: cider_d({name: human[name] for name in said}, said),
    ).run()
    return {
        "seed": config.training.seed,
        "cider_d": round(outcome.cider, 4),
        "best_epoch": outcome.epoch + 1,
        "epochs": config.training.epochs,
        "words": len(vocabulary),
    }


def _split(photos: Sequence[CaptionedPhoto], features: Features, vocabulary: Vocabulary, config: RunConfig) -> Split:
    limit = config.data.maximum_tokens
    ids = [[encode(text, vocabulary, limit) for text in photo.captions] for photo in photos]
    return Split([photo.name for photo in photos], features, ids)


def main() -> None:
    """Train the runs and print their scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", type=int, nargs="+", default=PHOTOS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def measured() -> dict[str, Any]:
        cache = options.cache or default_cache()
        return measure(options.data, options.photos, options.seeds, cache, options.runs, steps=options.steps)

    print_measured(measured, show, as_json=options.json)


def show(document: Mapping[str, Any]) -> None:
    """Print a line for each number of photos."""
    for row in document["rows"]:
        print(f"{row['photos']:6,} photos  CIDEr-D {row['cider_d']:.3f}")


if __name__ == "__main__":
    main()
