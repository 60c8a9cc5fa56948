"""`capprune data`: check a folder of photos and captions, convert one, or draw one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capprune.api.datasets import SCENES, check_data, draw_scenes, import_data
from capprune.cli.console import Place, cache_option, echo, emit, json_option, out_option, table
from capprune.cli.data_shards import features, shard
from capprune.cli.progress import TerminalProgress
from capprune_runtime.errors import DataError

if TYPE_CHECKING:
    from capprune.data.checking import DataCheck

SHOWN = 100  # photos printed for each kind of problem; --report lists all

layout_option = click.option("--layout", metavar="NAME", help="Layout to read if the folder holds several.")


@click.group()
def command() -> None:
    """Check a folder of photos and captions, convert one, or draw scenes."""


command.add_command(shard)
command.add_command(features)


@command.command()
@click.argument("folder", type=Place(file_okay=False))
@layout_option
@click.option("--report", type=Place(dir_okay=False), metavar="FILE", help="Write the full report to a .json file.")
@cache_option
@json_option
def check(folder: Path, layout: str | None, report: Path | None, cache: Path | None, as_json: bool) -> None:
    """Read the captions, decode every photo, find photos that are in two splits, and report whether training can run.

    FOLDER holds captions and photos in any usual layout: Karpathy's JSON, Flickr8k's and Flickr30k's own files, Kaggle's
    CSVs, COCO, VizWiz, a Hugging Face imagefolder, WebDataset tars, or a text file beside each photo. If training cannot
    run, the exit code is 4.

    \b
    Example:
      capprune data check flickr8k
      capprune data check coco --report coco-check.json
    """
    found = check_data(folder, layout=layout, report=report, cache=cache, progress=TerminalProgress())
    emit(found.as_json(), as_json, lambda: _show(found, report))
    if not found.ready:
        raise SystemExit(DataError.exit_code)


def _show(found: DataCheck, report: Path | None) -> None:
    from capprune.data.checking import problem_lines

    rows = [
        [one.split, f"{one.photos:,}", f"{one.captions:,}", f"{one.words:,}", f"{one.mean_length:.1f}"]
        for one in found.splits
    ]
    table(
        f"{found.captions.name} ({found.captions.layout})",
        ["split", "photos", "captions", "words", "words per caption"],
        rows,
    )
    if found.captions.splits_made:
        echo(
            "the data set has no splits, so they are made by hashes of the photos' names; "
            "capprune data import FOLDER --out NEW --shares 80,10,10 makes others"
        )
    for entry in found.left_out:
        echo(f"note: {entry}")
    for line in problem_lines(found, SHOWN):
        echo(line)
    cached = f", {found.from_cache:,} unchanged since an earlier check (cache)" if found.from_cache else ""
    echo(f"decoded {found.decoded:,} photos{cached}")
    if report is not None:
        echo(f"report: {report}")
    echo(found.verdict)
    echo(f"next: {found.next_command}")


@command.command(name="import")
@click.argument("folder", type=Place(file_okay=False))
@out_option("data set")
@layout_option
@click.option(
    "--shares", metavar="TRAIN,VAL,TEST", help="Make new splits, by hashes of the photos' names, such as 80,10,10."
)
@click.option(
    "--val", metavar="PERCENT", help="Share of train to use as val, such as 10; the other splits are unchanged."
)
@click.option("--drop-broken", is_flag=True, help="Leave out photos that are missing or cannot be decoded.")
@click.option("--link", is_flag=True, help="Link to the photo files instead of copying them.")
@cache_option
@json_option
def import_(
    folder: Path,
    out: Path,
    layout: str | None,
    shares: str | None,
    val: str | None,
    drop_broken: bool,
    link: bool,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Convert a data set of any layout to Karpathy's JSON and a folder of photos.

    Training reads every layout except parquet directly. Import to choose splits, to leave out broken photos, or to read parquet.

    \b
    Example:
      capprune data import kaggle-flickr30k --out flickr30k --shares 90,5,5 --link
    """
    imported = import_data(
        folder,
        out=out,
        layout=layout,
        shares=shares,
        val=val,
        drop_broken=drop_broken,
        link=link,
        cache=cache,
        progress=TerminalProgress(),
    )

    def show() -> None:
        captions = imported.captions
        sizes = ", ".join(f"{size:,} {split}" for split, size in captions.splits.items())
        echo(f"imported {len(captions.photos):,} photos ({sizes}): {out}")
        echo(f"next: capprune data check {out}")

    emit(imported.as_json(), as_json, show)


@command.command()
@out_option("data set", new=True)
@click.option(
    "--train", type=click.IntRange(1), default=SCENES["train"], show_default=True, help="Number of training scenes."
)
@click.option(
    "--val", type=click.IntRange(1), default=SCENES["val"], show_default=True, help="Number of validation scenes."
)
@click.option(
    "--test", type=click.IntRange(1), default=SCENES["test"], show_default=True, help="Number of test scenes."
)
@click.option(
    "--size", type=click.IntRange(32, 1024), default=224, show_default=True, help="Side of a photo in pixels."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Random seed; the same seed draws the same bytes.")
@json_option
def scenes(out: Path, train: int, val: int, test: int, size: int, seed: int, as_json: bool) -> None:
    """Draw scenes of one to three shapes with five captions each.

    \b
    Example:
      capprune data scenes --out scenes --train 500
    """
    drawn = draw_scenes(out=out, train=train, val=val, test=test, size=size, seed=seed, progress=TerminalProgress())
    count = sum(drawn.splits.values())
    emit(drawn.as_json(), as_json, lambda: echo(f"drew {count} scenes: {out}"))
