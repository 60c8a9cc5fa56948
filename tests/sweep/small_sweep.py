"""A sweep of a few seconds: scenes of 32 pixels, decoders of sixteen units, runs of one or two epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capprune.config.reading import load_config
from capprune.config.run import RunConfig
from capprune.data.scenes import draw_scenes
from capprune.sweeping.grid import expand
from capprune.sweeping.results import Document
from capprune.sweeping.sweep import Place, Sweep, Train
from capprune.training.progress import Silent
from capprune.training.session import train_run

CONFIG = """
name: small
data: {folder: FOLDER, minimum_count: 1, licence: drawn}
encoder: {size: 32}
decoder: {embedding: 16, hidden: 16, attention: 16, context: 16}
training: {epochs: 2, photos_per_batch: 4, learning_rate: 0.01, validation_photos: 4}
pruning: {sparsity: 0.8}
"""
TEST_PHOTOS = 6


class Said(Silent):
    """Progress that keeps its lines."""

    def __init__(self, said: list[str]) -> None:
        self.say = said.append  # type: ignore[method-assign]


@dataclass
class World:
    """Scenes, a config and a cache, and what the last sweep trained and said."""

    folder: Path
    trained: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "small.yaml"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def train(self, config: RunConfig, folder: Path) -> None:
        self.trained.append(config.name)
        train_run(config, folder, self.cache)

    def sweep(
        self,
        out: Path,
        *products: dict[str, Sequence[Any]],
        overrides: Sequence[str] = (),
        split: str = "test",
        train: Train | None = None,
    ) -> Document:
        self.trained, self.said = [], []
        base = load_config(self.config, overrides)
        place = Place(out, split, self.cache)
        runs = expand(base, products, out)
        return Sweep(base, runs, place, train=train or self.train, progress=Said(self.said)).run()


def make_world(folder: Path) -> World:
    scenes = folder / "scenes"
    draw_scenes(scenes, count={"train": 16, "val": 4, "test": TEST_PHOTOS}, seed=3, size=32)
    (folder / "small.yaml").write_text(CONFIG.replace("FOLDER", str(scenes)))
    return World(folder)
