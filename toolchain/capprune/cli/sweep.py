"""`capprune sweep`: train the runs of a grid and write one table."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.sweep import SweepResult, sweep
from capprune.cli.console import (
    Place,
    cache_option,
    echo,
    emit,
    json_option,
    on_option,
    out_option,
    table,
    workers_option,
)
from capprune.cli.progress import TerminalProgress


@click.command()
@click.argument("config", type=Place(dir_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--grid",
    multiple=True,
    required=True,
    metavar="KEY=V1,V2|FILE",
    help="Values of a key, or a YAML file with a list of grids; may be repeated.",
)
@click.option("--split", default="test", show_default=True, help="Split that every run is scored on.")
@workers_option
@on_option
@out_option("sweep")
@cache_option
@json_option
def command(
    config: Path,
    overrides: tuple[str, ...],
    grid: tuple[str, ...],
    split: str,
    workers: int | None,
    on: str | None,
    out: Path,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Train and score every run of a grid, and write one table.

    Keys are those of the config, and `weights` for export formats. A run that fails is recorded and does not stop the others.
    The same command resumes an interrupted sweep. With --workers or --on ray, several runs train in parallel, with one
    thread each. Scoring and timing run in this process.

    \b
    Example:
      capprune sweep configs/flickr8k_sparse.yaml --grid pruning.method=none,supermask,hard --grid training.seed=1,2,3 \\
        --grid weights=float32,int8 --out sweeps/methods
      capprune sweep configs/flickr8k_sparse.yaml --grid configs/sweep_methods.yaml --out sweeps/methods
    """
    result = sweep(
        config,
        grid=grid,
        out=out,
        split=split,
        workers=workers,
        on=on,
        overrides=overrides,
        cache=cache,
        progress=TerminalProgress(),
    )
    emit(result.as_json(), as_json, lambda: _show(result))
    result.raise_if_all_failed()


def _show(result: SweepResult) -> None:
    table(result.title, *result.cells())
    for row in result.document.rows:
        if row.status == "failed" and row.error:
            echo(f"failed: {row.run}, {row.weights}: {row.error.get('what')}")
    echo(f"table: {result.table}" + "".join(f"  plot: {path}" for path in result.plots))
