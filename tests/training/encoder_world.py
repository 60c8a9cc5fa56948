"""A training of seconds with the real encoder in it: photos of 32 pixels, two colours in two places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny_training as tiny

from capprune.config.reading import parse_config
from capprune.training.loop import Trainer
from capprune.training.outcome import Split

SIZE = 32  # pixels: one region
PHOTOS = 16
RGB = {"red": (230, 20, 20), "green": (20, 200, 40), "blue": (30, 30, 220)}
OWN = ("encoder.size=32", "encoder.grid=1", "training.photos_per_batch=8", "decoder.hidden=24", "training.epochs=50")
BATCHES = 2  # an epoch
SPARSE = ("pruning.method=supermask", "pruning.sparsity=0.8")


class Pixels:
    """Pixels in memory, as the cache would map them from disk."""

    def __init__(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self.pixels, self.shape = pixels, pixels.shape

    def __getitem__(self, photos: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return self.pixels[photos]


def split(seed: int, photos: int = PHOTOS) -> Split:
    """Photos that are all of a colour (a disk, they say) or striped with black (a square)."""
    random = np.random.default_rng(seed)
    colours, shapes = random.integers(3, size=photos), random.integers(2, size=photos)
    pixels = np.zeros((photos, SIZE, SIZE, 3), np.uint8)
    for number, (colour, shape) in enumerate(zip(colours, shapes, strict=True)):
        pixels[number] = RGB[tiny.COLOURS[colour]]
        if shape:
            pixels[number, ::4] = pixels[number, 1::4] = 0
    captions = [[tiny.ids(f"a {tiny.COLOURS[c]} {tiny.SHAPES[s]}")] * 2 for c, s in zip(colours, shapes, strict=True)]
    return Split([f"{seed}-{number}" for number in range(photos)], Pixels(pixels), captions)


def trainer(folder: Path, *overrides: str, **changed: Any) -> Trainer:
    """A trainer of this world; `changed` replaces arguments of `Trainer`."""
    validation = split(2, 12)
    arguments = {
        "vocabulary": tiny.VOCABULARY,
        "train": split(1),
        "validation": validation,
        "quality": tiny.share_right(validation),
    }
    return Trainer(parse_config(tiny.TREE, (*OWN, *overrides)), folder, **{**arguments, **changed})
