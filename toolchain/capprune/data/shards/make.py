"""Writes shards of the photos in a data folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from capprune.data.captions import load_caption_set
from capprune.data.photos import open_photos
from capprune.data.shards.index import ShardIndex
from capprune.data.shards.plan import PlannedShard, ShardPlan, plan_of_folder
from capprune.data.shards.write import Broken, Made, Output, Progress, photo_samples, write_all, write_shard

PHOTOS_PER_SHARD = 1000


@dataclass(frozen=True)
class ShardSettings:
    """Options for splitting a data folder into shards.

    Attributes:
        photos_per_shard: Maximum number of photos per shard.
        splits: Splits to write; None for all.
        broken: Whether photos that are missing or cannot be read stop the command or are skipped.
    """

    photos_per_shard: int = PHOTOS_PER_SHARD
    splits: tuple[str, ...] | None = None
    broken: Broken = "stop"


def plan_for(folder: Path, settings: ShardSettings) -> tuple[ShardPlan, tuple[str, ...]]:
    """Plan the shards of a data folder; see `plan_of_folder`."""
    captions = load_caption_set(folder)
    with open_photos(folder) as store:
        return plan_of_folder(
            captions,
            store,
            photos_per_shard=settings.photos_per_shard,
            splits=settings.splits,
            skip_missing=settings.broken == "skip",
        )


def shard_photos(
    folder: Path, out: Path, settings: ShardSettings, *, cache: Path, progress: Progress | None = None
) -> ShardIndex:
    """Write the photos and captions of a data folder as WebDataset shards.

    The same command continues after an interruption, and the same data gives the same bytes on every machine.

    Args:
        folder: The data folder, in any layout.
        out: Folder for the shards.
        settings: Options of the shards.
        cache: Folder of all caches.
        progress: Called with the number of finished photos and of all photos.

    Returns:
        The index, which is also written.

    Raises:
        UsageError: There is no such split, or `out` holds something else.
        DataError: A photo is missing or cannot be read.
        CapPruneError: The disk is full.
    """
    plan, missing = plan_for(folder, settings)

    def make(shards: Sequence[PlannedShard]) -> Iterator[Made]:
        for planned in shards:
            left_out: list[str] = []
            yield write_shard(out, planned, photo_samples(planned, settings.broken, left_out, cache), left_out)

    return write_all(Output(out, plan, "photos", broken=settings.broken, missing=missing), make, progress)
