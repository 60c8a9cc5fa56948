"""Data sets as shards: tar files for data that does not fit into memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from capprune.api.arguments import Overrides, Place, given_path, needs, optional_path, override_texts
from capprune.training.progress import SILENT, Progress
from capprune_runtime.atomic import check_folder_place

if TYPE_CHECKING:
    from capprune.data.shards.index import ShardIndex


@dataclass(frozen=True)
class Shards:
    """A folder of shards.

    Attributes:
        folder: Folder of the shards.
        index: Content of `shards.json`.
    """

    folder: Path
    index: ShardIndex

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune data shard --json` prints."""
        index = self.index
        return {
            "folder": str(self.folder),
            "content": index.content,
            "splits": index.splits,
            "shards": [{"name": one.name, "photos": one.photos, "sha256": one.sha256} for one in index.shards],
            "size_bytes": index.size_bytes,
            "skipped": [entry.as_json() for entry in index.left_out()],
        }


@needs("data shard")
def shard_data(
    folder: Place,
    *,
    out: Place,
    photos_per_shard: int = 1000,
    splits: str | Sequence[str] | None = None,
    broken: Literal["stop", "skip"] = "stop",
    cache: Place | None = None,
    progress: Progress = SILENT,
) -> Shards:
    """Write photos and captions as WebDataset tar files. The same data gives the same bytes.

    Args:
        folder: Photos and captions.
        out: Folder for the shards.
        photos_per_shard: Maximum number of photos per shard.
        splits: Splits to write, names or a string such as "train,val"; all by default.
        broken: How to handle photos that are missing or cannot be read: `stop`, or `skip` and count them.
        cache: Folder of earlier results; `~/.cache/capprune` by default.
        progress: Receives progress reports.

    Raises:
        UsageError: The folder does not exist, or `out` cannot be written to.
        DataError: There are no readable captions, or a photo is broken and `broken` is `stop`.
    """
    from capprune.data.cache_folder import default_cache
    from capprune.data.shards.make import ShardSettings, shard_photos

    place = given_path(out)
    check_folder_place(place, new=False)
    settings = ShardSettings(photos_per_shard, split_names(splits), broken)
    with progress.bar("photos") as tell:
        index = shard_photos(
            given_path(folder), place, settings, cache=optional_path(cache) or default_cache(), progress=tell
        )
    return _shards(place, index, progress)


@needs("data features")
def compute_features(
    source: Place,
    *,
    config: Place,
    out: Place,
    overrides: Overrides = (),
    photos_per_shard: int = 1000,
    splits: str | Sequence[str] | None = None,
    broken: Literal["stop", "skip"] = "stop",
    workers: int | None = None,
    on: str | None = None,
    cache: Place | None = None,
    progress: Progress = SILENT,
) -> Shards:
    """Compute the features of a frozen encoder once, and write them as shards. Any number of workers gives the same bytes.

    Args:
        source: A data folder, or a folder or URL of shards.
        config: The config whose encoder is used.
        out: Folder for the shards.
        overrides: Keys of the config with their values.
        photos_per_shard: Maximum number of photos per shard.
        splits: Splits to use, names or a string such as "train,val"; all by default.
        broken: How to handle photos that are missing or cannot be read: `stop`, or `skip` and count them.
        workers: Number of parallel processes; 1 by default, all processors with `on="ray"`.
        on: `ray[:ADDRESS]` to run on a Ray cluster.
        cache: Folder of earlier results; `~/.cache/capprune` by default.
        progress: Receives progress reports.

    Raises:
        UsageError: The source or the config does not exist, or `out` cannot be written to.
        DataError: A photo is broken and `broken` is `stop`.
    """
    from capprune.config.reading import load_config
    from capprune.data.cache_folder import default_cache
    from capprune.data.shards.make import ShardSettings
    from capprune.training.feature_shards import plan_features, write_features
    from capprune.workers import parse_on

    place, folder = given_path(out), optional_path(cache) or default_cache()
    check_folder_place(place, new=False)
    places, settings = parse_on(on, workers), ShardSettings(photos_per_shard, split_names(splits), broken)
    resolved = load_config(given_path(config), ("data.folder=unused", *override_texts(overrides)))
    planned = plan_features(os.fspath(source), place, resolved, settings, cache=folder)
    progress.say(f"{planned.output.plan.photos:,} photos take about {planned.size_bytes / 1e6:,.1f} MB")
    with progress.bar("features") as tell:
        index = write_features(planned, settings, workers=places, cache=folder, progress=tell)
    return _shards(place, index, progress)


def _shards(place: Path, index: ShardIndex, progress: Progress) -> Shards:
    for entry in index.left_out():
        progress.say(f"note: {entry}")
    return Shards(place, index)


def split_names(splits: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names of splits, each once; None for all."""
    if splits is None:
        return None
    names = splits.split(",") if isinstance(splits, str) else splits
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
