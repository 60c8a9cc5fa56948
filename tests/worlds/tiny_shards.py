"""Data folders of a few noisy photos with captions, and shards of drawn features."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from capprune.data.shards.index import EncoderFacts
from capprune.data.shards.plan import PlannedShard, ShardPlan
from capprune.data.shards.write import Made, Output, Sample, write_all, write_shard


def photo_folder(folder: Path, *, train: int = 23, val: int = 5, seed: int = 0) -> Path:
    """A data set in Karpathy's layout: PNGs of noise, two captions each."""
    (folder / "photos").mkdir(parents=True)
    images = []
    for number in range(train + val):
        name = f"{number:03}.png"
        noise = np.random.default_rng([seed, number]).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(noise).save(folder / "photos" / name)
        sentences = [{"raw": f"a photo {'of noise ' * (number % 4)}here"}, {"raw": f"noise number {number}"}]
        images.append({"filename": name, "split": "train" if number < train else "val", "sentences": sentences})
    (folder / "dataset.json").write_text(json.dumps({"dataset": "noise", "images": images}))
    return folder


class Stripes:
    """A stand-in for a network, in NumPy: the mean colour of four stripes of a photo."""

    key, size, shape = "stripes-1", 16, (4, 3)

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        means: np.ndarray = photos.reshape(len(photos), 4, -1, 3).mean(2, dtype=np.float32)
        return means


def feature_shards(
    out: Path, features: dict[str, np.ndarray], captions: dict[str, Sequence[Sequence[str]]], *, per_shard: int
) -> Path:
    """Shards of the features (P, R, F) of each split, float16."""
    shards, holds = [], {}
    for split, own in features.items():
        for number, first in enumerate(range(0, len(own), per_shard)):
            name = f"{split}-{number:06}"
            holds[name] = (split, range(first, min(first + per_shard, len(own))))
            shards.append(PlannedShard(name, split))

    def samples(name: str) -> Iterator[Sample]:
        split, numbers = holds[name]
        for number in numbers:
            content = io.BytesIO()
            np.save(content, features[split][number])
            yield Sample(f"{split}-{number}", tuple(captions[split][number]), "npy", content.getvalue())

    def make(left: Sequence[PlannedShard]) -> Iterator[Made]:
        for planned in left:
            yield write_shard(out, planned, samples(planned.name), ())

    shape = next(iter(features.values())).shape[1:]
    plan = ShardPlan("drawn", tuple(shards), None, "0" * 64, "")
    write_all(Output(out, plan, "features", EncoderFacts("drawn", tuple(shape))), make)
    return out
