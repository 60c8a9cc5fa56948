"""`capprune demo`: the complete workflow on drawn scenes, up to a verified sparse bundle and a table of results."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.demo import SCENES, DemoResult, demo
from capprune.cli.console import Place, cache_option, echo, emit, json_option, table
from capprune.cli.progress import TerminalProgress


@click.command()
@click.option(
    "--out",
    type=Place(file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder for all results.",
)
@cache_option
@json_option
def command(out: Path, cache: Path | None, as_json: bool) -> None:
    """Draw scenes, train, prune, export and validate, without data of your own.

    Needs no data, and about six minutes on two cores. The same command resumes an interrupted demo.

    \b
    Example:
      capprune demo
    """
    made = demo(out=out, cache=cache, progress=TerminalProgress())
    emit(made.as_json(), as_json, lambda: _show(made))
    made.raise_if_different()


def _show(made: DemoResult) -> None:
    note = "times: median per word, one row, one thread, on this machine"
    table(f"{SCENES['test']} test scenes", *made.cells(), note=note)
    echo(made.beside_dense_int8())
    echo(f"wrote {made.folder / 'results.json'}, with runs and bundles beside it")
    photo = next((made.folder / "scenes" / "photos").iterdir())
    echo(f"next: capprune caption {photo} --bundle {made.folder / 'bundles' / 'sparse'}")
    if made.page is not None:
        echo(f"report: {made.page}")
