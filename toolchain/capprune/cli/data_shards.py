"""`capprune data shard` and `capprune data features`: data sets as shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from capprune.api.shards import Shards, compute_features, shard_data
from capprune.cli.console import Place, cache_option, echo, emit, json_option, on_option, out_option, workers_option
from capprune.cli.progress import TerminalProgress

splits_option = click.option("--splits", metavar="NAME,NAME", help="Only these splits.  [default: all]")
broken_option = click.option(
    "--broken",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="How to handle photos that are missing or cannot be read: stop, or skip and count them.",
)
per_shard_option = click.option(
    "--photos-per-shard",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Maximum number of photos per shard.",
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

    The same data gives the same bytes, and the same command resumes after an interruption. shards.json lists every tar file
    with its SHA-256. Train with data.shards=FOLDER, or with a URL.

    \b
    Example:
      capprune data shard coco --out coco-shards
      capprune train configs/flickr8k_dense.yaml data.shards=coco-shards --out runs/coco
    """
    made = shard_data(
        folder,
        out=out,
        photos_per_shard=photos_per_shard,
        splits=splits,
        broken=broken,
        cache=cache,
        progress=TerminalProgress(),
    )
    emit(made.as_json(), as_json, lambda: show_shards(made, f"next: capprune train CONFIG data.shards={out} --out RUN"))


@click.command()
@click.argument("source", metavar="FOLDER|SHARDS")
@click.option("--config", type=Place(dir_okay=False), required=True, help="The config whose encoder is used.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the config; may be repeated."
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
    """Compute the features of a frozen encoder once, and write them as shards, from which training reads them.

    Takes a data folder, or a folder or URL of shards. Any number of workers gives the same bytes. The same command resumes
    after an interruption.

    \b
    Example:
      capprune data features coco-shards --config configs/flickr8k_dense.yaml --workers 4 --out coco-features
      capprune train configs/flickr8k_dense.yaml data.shards=coco-features --out runs/coco
    """
    made = compute_features(
        source,
        config=config,
        overrides=overrides,
        out=out,
        photos_per_shard=photos_per_shard,
        splits=splits,
        broken=broken,
        workers=workers,
        on=on,
        cache=cache,
        progress=TerminalProgress(),
    )
    next_command = f"next: capprune train {config} data.shards={out} --out RUN"
    emit(made.as_json(), as_json, lambda: show_shards(made, next_command))


def show_shards(made: Shards, next_command: str) -> None:
    """Print the contents of a folder of shards."""
    index = made.index
    sizes = ", ".join(f"{size:,} {split}" for split, size in index.splits.items())
    photos, megabytes = sum(index.splits.values()), index.size_bytes / 1e6
    echo(f"{photos:,} photos ({sizes}) in {len(index.shards):,} shards, {megabytes:,.1f} MB: {made.folder}")
    echo(next_command)
