"""`capprune sweep`: a config and a grid in, many runs and one table out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    table,
    workers_option,
)

if TYPE_CHECKING:
    from capprune.config.run import RunConfig
    from capprune.sweeping.grid import Combination
    from capprune.sweeping.results import Document
    from capprune.sweeping.spread import SpreadTraining, TrainTask
    from capprune.workers import Workers

TABLE = "sweep.md"


@click.command()
@click.argument("config", type=Place(dir_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--grid",
    multiple=True,
    required=True,
    metavar="KEY=V1,V2|FILE",
    help="Values of a key, or a YAML list of products; may be repeated.",
)
@click.option("--split", default="test", show_default=True, help="What every run is scored on.")
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
    """Train every run of a grid, score it, and put all of them into one table.

    Keys are those of the config, and `weights` for export formats. A run that fails is noted and does not stop the others.
    The same command goes on where an interrupted sweep stopped. With --workers or --on ray several runs train at once, with one
    thread each; scoring and timing stay in this process.

    \b
    Example:
      capprune sweep configs/flickr8k_sparse.yaml --grid pruning.method=none,supermask,hard --grid training.seed=1,2,3 \\
        --grid weights=float32,int8 --out sweeps/methods
      capprune sweep configs/flickr8k_sparse.yaml --grid configs/sweep_methods.yaml --out sweeps/methods
    """
    from capprune.config.reading import load_config
    from capprune.sweeping.grid import expand, read_grid
    from capprune.sweeping.sweep import Place, Sweep
    from capprune.sweeping.table import markdown
    from capprune.training.prepare import default_cache
    from capprune.workers import parse_on
    from capprune_runtime.atomic import write_text

    base = load_config(config, overrides)
    runs = expand(base, read_grid(grid), out)
    cache = cache or default_cache()
    place = Place(out, split, cache)
    say(f"{len(runs)} runs in {sum(len(run.weights) for run in runs)} rows")

    def train_one(config: RunConfig, folder: Path) -> None:
        from capprune.cli.train import train

        train(config, folder, cache)

    def wrote(document: Document) -> None:
        write_text(out / TABLE, markdown(document))

    spread = _spread(parse_on(on, workers), runs, out, cache)
    try:
        document = Sweep(base, runs, place, train=spread or train_one, bar=bar, say=say, wrote=wrote).run()
    finally:
        if spread is not None:
            spread.close()
    drawn = _draw(document, out)
    emit(document.model_dump(mode="json"), as_json, lambda: _show(document, out, drawn))
    _raise_if_all_failed(document, out)


def _spread(places: Workers, runs: Sequence[Combination], out: Path, cache: Path) -> SpreadTraining | None:
    """Training by several workers; None where this process trains."""
    if places.ray is None and places.count == 1:
        return None
    from capprune.sweeping.spread import SpreadTraining

    return SpreadTraining(runs, out, places, train=train_in_worker, cache=cache, say=say)


def train_in_worker(task: TrainTask) -> dict[str, object] | None:
    """Train one run of a sweep; returns the user's error where it fails."""
    import yaml

    from capprune.cli.train import train
    from capprune.config.reading import parse_config
    from capprune_runtime.errors import CapPruneError

    try:
        train(parse_config(yaml.safe_load(task.config)), task.folder, task.cache)
    except CapPruneError as error:
        return error.as_json()
    return None


def _draw(document: Document, out: Path) -> list[Path]:
    """The plots, or a line about the extra that draws them."""
    from capprune.report import require_extra
    from capprune_runtime.errors import MissingExtra

    try:
        require_extra()
    except MissingExtra as error:
        say(f"no plots: {error}")
        return []
    from capprune.report.sweep_plots import draw_sweep

    return draw_sweep(document, out)


def _show(document: Document, out: Path, drawn: list[Path]) -> None:
    from capprune.sweeping.table import cells

    shown = ("run", "weights", "seeds", "CIDEr-D", "to dense", "zeros", "decoder, bytes", "step, µs", "minutes")
    columns, rows = cells(document)
    places = [columns.index(name) for name in shown if name in columns]
    table(
        f"{document.photos:,} photos of {document.split}, beam {document.beam}, {document.tokenizer} tokens",
        [columns[place] for place in places],
        [[row[place] for place in places] for row in rows],
    )
    for row in document.rows:
        if row.status == "failed" and row.error:
            echo(f"failed: {row.run}, {row.weights}: {row.error.get('what')}")
    echo(f"table: {out / TABLE}" + "".join(f"  plot: {path}" for path in drawn))


def _raise_if_all_failed(document: Document, out: Path) -> None:
    from capprune_runtime.errors import CapPruneError

    if all(row.status == "failed" for row in document.rows):
        raise CapPruneError(
            "no run of this sweep could be finished",
            where=out,
            hint=f"{out / TABLE} says why; the same command tries again",
        )
