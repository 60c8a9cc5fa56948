"""A training of a fraction of a second: drawn feature vectors, no network, captions that the features tell.

Run as a program it trains in the folder given and sends itself a signal after a step:
`python tiny_training.py FOLDER OVERRIDE,OVERRIDE SIGINT 7`. With `0.4s` in place of the step the signal comes so long after the
first step, whatever the program is doing.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.data.shards.place import ShardPlace
from capprune.data.shards.reader import ShardPhotos
from capprune.training.batches import Batches
from capprune.training.launch import Place, place_of
from capprune.training.loop import Trainer
from capprune.training.outcome import Progress, Report, Split
from capprune.training.streamed import ShardBatches, ShardCaptions, ShardNames, ShardTable
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS, Vocabulary
from capprune_runtime.errors import CapPruneError

PHOTOS, REGIONS, FEATURES, CAPTIONS = 24, 2, 16, 2
COLOURS, SHAPES = ("red", "green", "blue"), ("disk", "square")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, "a", *COLOURS, *SHAPES, "here"))
TREE = {
    "data": {"folder": "nowhere", "maximum_tokens": 6},
    "decoder": {"embedding": 8, "hidden": 16, "attention": 8, "context": 12},
    "training": {"epochs": 4, "photos_per_batch": 5, "learning_rate": 2e-2, "seed": 3},
}
SPARSE = ("pruning.method=supermask", "pruning.sparsity=0.8", "training.epochs=24")
BATCHES = 5  # an epoch


class Table:
    """Features in memory, as the cache would map them from disk."""

    def __init__(self, features: npt.NDArray[np.float16]) -> None:
        self.features = features
        photos, regions, channels = features.shape
        self.shape = photos, regions, channels

    def __getitem__(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        return self.features[photos]


def split(seed: int, photos: int = PHOTOS, features: int = FEATURES) -> Split:
    """Photos of a colour and a shape each, which their features name in noise."""
    random = np.random.default_rng(seed)
    colours, shapes = random.integers(len(COLOURS), size=photos), random.integers(len(SHAPES), size=photos)
    vectors = random.normal(0, 0.1, (photos, REGIONS, features))
    vectors[np.arange(photos), :, colours] += 1
    vectors[np.arange(photos), :, len(COLOURS) + shapes] += 1
    captions = [
        [ids(f"a {COLOURS[colour]} {SHAPES[shape]}"), ids(f"a {SHAPES[shape]} {COLOURS[colour]} here")]
        for colour, shape in zip(colours, shapes, strict=True)
    ]
    return Split([f"{seed}-{number}" for number in range(photos)], Table(vectors.astype(np.float16)), captions)


def ids(caption: str) -> tuple[int, ...]:
    return tuple(VOCABULARY.id(word) for word in caption.split())


def shards_of_the_world(out: Path) -> Path:
    """The features and captions of the training photos, five photos a shard."""
    import tiny_shards  # not on the path of this program

    train = split(1)
    texts = [[VOCABULARY.caption(ids) for ids in own] for own in train.captions]
    features = {"train": train.features[np.arange(PHOTOS)]}
    return tiny_shards.feature_shards(out, features, {"train": texts}, per_shard=5)


class Recorded(ShardTable):
    """Appends the numbers of the photos of each access to a file, if it has one."""

    record: Path | None = None

    def __getitem__(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if self.record is not None:
            with self.record.open("a") as file:
                file.write(f"{np.asarray(photos).tolist()}\n")
        return super().__getitem__(photos)


def streamed(settings: RunConfig, place: Place, record: Path | None) -> Split:
    """The training photos of a config with `data.shards`, as a process reads them."""
    folder = Path(str(settings.data.shards))
    source = ShardPlace(str(folder), folder / "cache")
    photos = ShardPhotos(source, source.index.of_split("train"))
    table = Recorded(photos, size=None, stored=source.index.encoder.shape)  # type: ignore[union-attr]
    table.record = record
    captions = ShardCaptions(photos, ids)
    batches = ShardBatches(
        photos,
        captions,
        table,
        photos_per_batch=settings.training.photos_per_batch,
        shuffle_photos=settings.data.shuffle_photos,
        seed=settings.training.seed,
        place=place,
        parts=settings.training.accumulate,
    )
    return Split(ShardNames(photos), table, captions, batches=batches)


def config(*overrides: str) -> RunConfig:
    return parse_config(TREE, overrides)


def share_right(validation: Split) -> Callable[[Mapping[str, str]], float]:
    """Quality in place of CIDEr: the share of captions that are one of their photo's own."""

    def quality(captions: Mapping[str, str]) -> float:
        right = [
            ids(caption) in validation.captions[validation.names.index(name)] for name, caption in captions.items()
        ]
        return float(np.mean(right))

    return quality


def trainer(folder: Path, *overrides: str, report: Report | None = None, **changed: Any) -> Trainer:
    """A trainer of this world; `changed` replaces arguments of `Trainer`, and `record` is a file for photos of shards."""
    validation, settings = split(2, 12), config(*overrides)
    place, record = changed.get("place") or Place(), changed.pop("record", None)
    arguments = {
        "vocabulary": VOCABULARY,
        "train": split(1) if settings.data.shards is None else streamed(settings, place, record),
        "validation": validation,
        "quality": share_right(validation),
        "report": report,
    }
    return Trainer(settings, folder, **{**arguments, **changed})


def trainer_batches(photos_per_batch: int) -> Batches:
    return Batches(split(1).captions, photos_per_batch=photos_per_batch, seed=3)


def main(folder: str, overrides: str, name: str, step: str) -> int:
    """Train, and send the signal after the step, or some time after the first one."""
    torch.set_num_threads(1)

    def send() -> None:
        os.kill(os.getpid(), signal.Signals[name])

    clock = threading.Timer(float(step.removesuffix("s")), send) if step.endswith("s") else None

    def report(progress: Progress) -> None:
        if clock is not None and not clock.is_alive():
            clock.daemon = True
            clock.start()
        elif clock is None and progress.cider is None and progress.step == int(step):
            send()

    try:
        place = place_of(os.environ)
        given = re.split(r",(?=[a-z_.]+=)", overrides)
        record = Path(f"{folder}.{place.rank}.photos")
        trainer(Path(folder), *given, report=report, note=print, place=place, record=record).run()
    except KeyboardInterrupt:
        return 130
    except CapPruneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
