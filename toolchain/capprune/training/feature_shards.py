"""Computes shards of features from photos with any number of workers.

Each worker writes whole shards. The index is made of their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

import yaml

from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.data.shards.index import INDEX, EncoderFacts, ShardIndex
from capprune.data.shards.make import ShardSettings, plan_for
from capprune.data.shards.place import ShardPlace, is_url
from capprune.data.shards.plan import PlannedShard, ShardPlan, plan_of_shards
from capprune.data.shards.write import TOGETHER, Made, Output, Progress, feature_samples, write_all, write_shard
from capprune.models.caption_model import BlockExtractor, FeatureExtractor, GridEncoder
from capprune.training.start import start_network
from capprune.workers import Workers
from capprune_runtime.atomic import check_folder_place
from capprune_runtime.bundle.preprocessing import REGIONS
from capprune_runtime.errors import ConfigError

HALF_BYTES = 2
OVERHEAD_BYTES = 3072  # of a photo in a tar file: two headers, the captions and padding of their blocks


@dataclass(frozen=True)
class FeaturePlan:
    """What `write_features` will write.

    Attributes:
        output: The shards.
        config: Config of the encoder that computes the features.
    """

    output: Output
    config: RunConfig

    @property
    def size_bytes(self) -> int:
        """Estimated size of the shards on disk, in bytes."""
        assert self.output.encoder is not None
        return self.output.plan.photos * (prod(self.output.encoder.shape) * HALF_BYTES + OVERHEAD_BYTES)


@dataclass(frozen=True)
class _Task:
    """One shard to make, as sent to a worker."""

    out: Path
    planned: PlannedShard
    config: str  # as YAML
    settings: ShardSettings
    cache: Path


def plan_features(source: str, out: Path, config: RunConfig, settings: ShardSettings, *, cache: Path) -> FeaturePlan:
    """Choose the shards to make, and load the encoder once to check it.

    Args:
        source: A data folder in any layout, or a folder or URL of photo shards. Each photo shard becomes one
            feature shard.
        out: Folder for the shards.
        config: Config of the encoder.
        settings: How a data folder is split into shards. For shards: which splits, and how broken photos are handled.
        cache: Folder of all caches.

    Raises:
        ConfigError: The encoder is trained from its first block on, so no features can be precomputed.
        UsageError: There is no such split, or `out` holds something else.
        DataError: A photo is missing.
        CapPruneError: The disk is too small.
    """
    extractor = _extractor(config.as_yaml())
    plan, missing = _plan(source, settings, cache)
    facts = EncoderFacts(extractor.key, tuple(extractor.shape))
    output = Output(out, plan, "features", facts, f"{TOGETHER} together", settings.broken, missing)
    found = FeaturePlan(output, config)
    if output.finished() is None:
        check_folder_place(out, new=False, needed_bytes=found.size_bytes)
    return found


def write_features(
    planned: FeaturePlan,
    settings: ShardSettings,
    *,
    workers: Workers,
    cache: Path,
    progress: Progress | None = None,
) -> ShardIndex:
    """Compute the features, and write the index when all shards exist. The bytes do not depend on the workers.

    Raises:
        DataError: A photo cannot be read.
        CapPruneError: The disk is full, or a worker died.
    """
    out = planned.output.folder.resolve()  # workers may have another working directory

    def make(shards: Sequence[PlannedShard]) -> Iterator[Made]:
        tasks = [_Task(out, one, planned.config.as_yaml(), settings, cache.resolve()) for one in shards]
        for _, made in workers.run(make_shard, tasks):
            yield made

    return write_all(planned.output, make, progress)


def make_shard(task: _Task) -> Made:
    """Make one shard of features; runs in a worker."""
    left_out: list[str] = []
    extractor = _extractor(task.config)
    samples = feature_samples(task.planned, extractor, task.settings.broken, left_out, task.cache)
    return write_shard(task.out, task.planned, samples, left_out)


def _plan(source: str, settings: ShardSettings, cache: Path) -> tuple[ShardPlan, tuple[str, ...]]:
    if is_url(source) or (Path(source) / INDEX).is_file():
        place = source if is_url(source) else str(Path(source).resolve())
        return plan_of_shards(ShardPlace(place, cache), settings.splits), ()
    return plan_for(Path(source).resolve(), settings)


@lru_cache(maxsize=1)
def _extractor(text: str) -> FeatureExtractor | BlockExtractor:
    """Return the network of a config, loaded once in each process."""
    config = parse_config(yaml.safe_load(text))
    encoder = config.encoder
    if encoder.name == REGIONS or (encoder.train != "frozen" and not encoder.frozen_blocks):
        raise ConfigError(
            "there are no features to compute once in this config",
            where="encoder.train" if encoder.name != REGIONS else "encoder.name",
            expected="a frozen encoder, or encoder.frozen_blocks",
            found=encoder.train if encoder.name != REGIONS else REGIONS,
        )
    grid = GridEncoder(encoder, start_network(config))
    return FeatureExtractor(grid) if encoder.train == "frozen" else BlockExtractor(grid)
