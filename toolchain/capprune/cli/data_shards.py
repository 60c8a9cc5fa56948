"""`capprune data shard` and `capprune data features`: data sets as shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import (
    Place,
    bar,
    cache_option,
    echo,
    emit,
    json_option,
    on_option,
    out_option,
    say,
    workers_option,
)
from capprune.extras import keys_of, require_extras

if TYPE_CHECKING:
    from capprune.data.shards.index import ShardIndex

splits_option = click.option("--splits", metavar="NAME,NAME", help="Only these splits.  [default: all]")
broken_option = click.option(
    "--broken",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What photos that are missing or cannot be read do: stop the command, or be left out and counted.",
)
per_shard_option = click.option(
    "--photos-per-shard",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Most photos of a shard.",
)


@click.command()
@click.argument("folder", type=Place(file_okay=False))
@out_option("shards")
@per_shard_option
@splits_option
@broken_option
@cache_option
@json_option
def shard(
    folder: Path,
    out: Path,
    photos_per_shard: int,
    splits: str | None,
    broken: Any,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Write photos and captions as WebDataset tar files, for data sets that do not fit into memory.

    The same data makes the same bytes, and the same command continues after an interruption. shards.json lists every tar file
    with its SHA-256. data.shards=FOLDER trains from them; it takes URLs too.

    \b
    Example:
      capprune data shard coco --out coco-shards
      capprune train configs/flickr8k_dense.yaml data.shards=coco-shards --out runs/coco
    """
    require_extras("data shard")
    from capprune.data.cache_folder import default_cache
    from capprune.data.shards.make import ShardSettings, shard_photos

    settings = ShardSettings(photos_per_shard, split_names(splits), broken)
    with bar("photos") as tell:
        index = shard_photos(folder, out, settings, cache=cache or default_cache(), progress=tell)
    show_shards(index, out, as_json, f"next: capprune train CONFIG data.shards={out} --out RUN")


@click.command()
@click.argument("source", metavar="FOLDER|SHARDS")
@click.option("--config", type=Place(dir_okay=False), required=True, help="The config whose encoder is used.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Changes a key of the config; may be repeated."
)
@out_option("shards")
@per_shard_option
@splits_option
@broken_option
@workers_option
@on_option
@cache_option
@json_option
def features(
    source: str,
    config: Path,
    overrides: tuple[str, ...],
    out: Path,
    photos_per_shard: int,
    splits: str | None,
    broken: Any,
    workers: int | None,
    on: str | None,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Compute what a frozen encoder sees of photos once, and write it as shards that train as shards of photos do.

    Takes a data folder, or a folder or URL of shards. Any number of workers makes the same bytes. The same command continues
    after an interruption.

    \b
    Example:
      capprune data features coco-shards --config configs/flickr8k_dense.yaml --workers 4 --out coco-features
      capprune train configs/flickr8k_dense.yaml data.shards=coco-features --out runs/coco
    """
    require_extras(*keys_of("data features", {"on": on}))
    from capprune.config.reading import load_config
    from capprune.data.cache_folder import default_cache
    from capprune.data.shards.make import ShardSettings
    from capprune.training.feature_shards import plan_features, write_features
    from capprune.workers import parse_on

    places, settings = parse_on(on, workers), ShardSettings(photos_per_shard, split_names(splits), broken)
    cache = cache or default_cache()
    resolved = load_config(config, ("data.folder=unused", *overrides))
    planned = plan_features(source, out, resolved, settings, cache=cache)
    say(f"{planned.output.plan.photos:,} photos take about {planned.size_bytes / 1e6:,.1f} MB")
    with bar("features") as tell:
        index = write_features(planned, settings, workers=places, cache=cache, progress=tell)
    show_shards(index, out, as_json, f"next: capprune train {config} data.shards={out} --out RUN")


def split_names(text: str | None) -> tuple[str, ...] | None:
    """The names in `--splits`."""
    return None if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def show_shards(index: ShardIndex, out: Path, as_json: bool, next_command: str) -> None:
    """Print what a folder of shards holds."""
    for entry in index.left_out():
        say(f"note: {entry}")

    def show() -> None:
        sizes = ", ".join(f"{size:,} {split}" for split, size in index.splits.items())
        photos, megabytes = sum(index.splits.values()), index.size_bytes / 1e6
        echo(f"{photos:,} photos ({sizes}) in {len(index.shards):,} shards, {megabytes:,.1f} MB: {out}")
        echo(next_command)

    document: dict[str, Any] = {"folder": str(out), "content": index.content, "splits": index.splits}
    document |= {
        "shards": [{"name": one.name, "photos": one.photos, "sha256": one.sha256} for one in index.shards],
        "size_bytes": index.size_bytes,
        "skipped": [entry.as_json() for entry in index.left_out()],
    }
    emit(document, as_json, show)
