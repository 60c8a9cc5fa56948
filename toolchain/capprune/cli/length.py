"""`capprune length`: choose how long the captions of a run are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from capprune.api.length import LengthResult, describe, length
from capprune.cli.console import Place, echo, emit, json_option, out_option, table
from capprune.cli.progress import TerminalProgress


@click.command()
@click.argument("run", type=Place(file_okay=False))
@click.option(
    "--data",
    type=Place(file_okay=False),
    multiple=True,
    required=True,
    help="Data set with captions; can be given several times.",
)
@out_option("run with the chosen length", new=True)
@click.option("--split", default="val", show_default=True, help="Split of --data.")
@click.option("--beam", type=click.IntRange(1, 100), default=3, show_default=True, help="Beam width.")
@click.option("--limit", type=click.IntRange(1), help="Use only the first N photos of each data set.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Photos per batch.")
@json_option
def command(run: Path, as_json: bool, **options: Any) -> None:
    """Choose how long the captions of a run are.

    A beam search prefers short captions. This command searches the captions of --split with several penalties on the
    score of the end of a caption, prints their CIDEr-D, and writes a copy of the run with the best one in its bias. Nothing
    is trained. Use it after the last training, before the export.

    \b
    Example:
      capprune length runs/scst --data flickr8k --out runs/final
      capprune export runs/final --out bundles/final
    """
    found = length(run, progress=TerminalProgress(), **options)
    emit(found.as_json(), as_json, lambda: _show(found))


def _show(found: LengthResult) -> None:
    columns, rows = describe(found)
    table(f"{found.photos:,} photos; penalty in nats", columns, rows)
    echo(f"wrote {found.run.folder} with a penalty of {found.chosen.penalty:g}")
    echo(f"next: capprune export {found.run.folder} --out BUNDLE")
