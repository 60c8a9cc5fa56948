"""Sweeps: train and score every run of a grid, and write one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Overrides, Place, given_path, needs, optional_path, override_texts
from capprune.api.html import html_table
from capprune.training.progress import SILENT, Lines, Progress
from capprune_runtime.errors import CapPruneError, MissingExtra

if TYPE_CHECKING:
    from capprune.sweeping import sweep as sweeping
    from capprune.sweeping.grid import Combination
    from capprune.sweeping.results import Document
    from capprune.sweeping.spread import SpreadTraining, TrainTask
    from capprune.workers import Workers

TABLE = "sweep.md"
SHOWN = ("run", "weights", "seeds", "CIDEr-D", "to dense", "zeros", "decoder, bytes", "step, µs", "minutes")


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep.

    Attributes:
        folder: The sweep's folder, with its runs.
        document: Content of `sweep.json`.
        table: Path of the Markdown table.
        plots: Paths of the plots; empty without the extra `report`.
    """

    folder: Path
    document: Document
    table: Path
    plots: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune sweep --json` prints."""
        found: dict[str, Any] = self.document.model_dump(mode="json")
        return found

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns and rows of the short table."""
        from capprune.sweeping.table import cells

        columns, rows = cells(self.document)
        places = [columns.index(name) for name in SHOWN if name in columns]
        return [columns[place] for place in places], [[row[place] for place in places] for row in rows]

    def _repr_html_(self) -> str:
        return html_table(self.title, *self.cells())

    @property
    def title(self) -> str:
        """Title of the table."""
        document = self.document
        photos = f"{document.photos:,} photos of {document.split}"
        return f"{photos}, beam {document.beam}, {document.tokenizer} tokens"

    def raise_if_all_failed(self) -> None:
        """Raise an error if every run of the sweep failed.

        Raises:
            CapPruneError: Every row has failed.
        """
        if all(row.status == "failed" for row in self.document.rows):
            raise CapPruneError(
                "no run of this sweep could be finished",
                where=self.folder,
                hint=f"{self.table} lists the errors; the same command tries again",
            )


@needs("sweep")
def sweep(
    config: Place,
    *,
    grid: Sequence[str] | Mapping[str, Sequence[object]],
    out: Place,
    split: str = "test",
    workers: int | None = None,
    on: str | None = None,
    overrides: Overrides = (),
    cache: Place | None = None,
    progress: Progress = SILENT,
) -> SweepResult:
    """Train and score every run of a grid, and write one table. An interrupted sweep is resumed.

    A run that fails is recorded and does not stop the others; see `SweepResult.raise_if_all_failed`.

    Args:
        config: The config that the grid varies.
        grid: Values by key, `{"pruning.method": ["none", "hard"], "training.seed": [1, 2]}`, or strings as for `--grid`.
        out: Folder for the sweep.
        split: The split that every run is scored on.
        workers: Number of runs trained in parallel, with one thread each; 1 by default, all processors with `on="ray"`.
        on: `ray[:ADDRESS]` to train on a Ray cluster.
        overrides: Keys of the config with their values.
        cache: Folder for computed features; `~/.cache/capprune` by default.
        progress: Receives progress reports.

    Raises:
        UsageError: The config or a key of the grid does not exist, or `out` holds another sweep.
        DataError: The split is empty.
    """
    from capprune.config.reading import load_config
    from capprune.sweeping.grid import expand, read_grid
    from capprune.sweeping.sweep import Place, Sweep
    from capprune.sweeping.table import markdown
    from capprune.training.prepare import default_cache
    from capprune.workers import parse_on
    from capprune_runtime.atomic import check_folder_place, write_text

    folder = given_path(out)
    check_folder_place(folder, new=False)
    base = load_config(given_path(config), override_texts(overrides))
    products = [grid] if isinstance(grid, Mapping) else read_grid(grid)
    runs = expand(base, products, folder)
    progress.say(f"{len(runs)} runs in {sum(len(run.weights) for run in runs)} rows")
    place, table = Place(folder, split, optional_path(cache) or default_cache()), folder / TABLE

    def wrote(document: Document) -> None:
        write_text(table, markdown(document))

    spread = _spread(parse_on(on, workers), runs, place, progress)
    try:
        document = Sweep(base, runs, place, progress=progress, train=spread, wrote=wrote).run()
    finally:
        if spread is not None:
            spread.close()
    return SweepResult(folder, document, table, tuple(_draw(document, folder, progress)))


def _spread(
    workers: Workers, runs: Sequence[Combination], place: sweeping.Place, progress: Progress
) -> SpreadTraining | None:
    """Return the training with several workers; None if this process trains."""
    if workers.ray is None and workers.count == 1:
        return None
    from capprune.sweeping.spread import SpreadTraining

    folder, cache = place.folder, place.cache
    return SpreadTraining(runs, folder, workers, train=train_in_worker, cache=cache, say=progress.say)


def train_in_worker(task: TrainTask) -> dict[str, object] | None:
    """Train one run of a sweep in a worker. Returns the user's error if it fails."""
    import yaml

    from capprune.config.reading import parse_config
    from capprune.training.session import train_run

    try:
        train_run(parse_config(yaml.safe_load(task.config)), task.folder, task.cache, Lines())
    except CapPruneError as error:
        return error.as_json()
    return None


def _draw(document: Document, out: Path, progress: Progress) -> list[Path]:
    """Draw the plots, or report the missing extra."""
    from capprune.reporting import require_extra

    try:
        require_extra()
    except MissingExtra as error:
        progress.say(f"no plots: {error}")
        return []
    from capprune.reporting.sweep_plots import draw_sweep

    return draw_sweep(document, out)
