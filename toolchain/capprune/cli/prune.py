"""`capprune prune`: make a sparse run from a trained one."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.run import prune
from capprune.cli.console import Place, cache_option, json_option, out_option
from capprune.cli.machine import machine_options, placed, progress_of
from capprune.cli.train import show
from capprune.config.methods import METHODS, methods_of_trained_runs


@click.command()
@click.argument("run", type=Place(file_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--method",
    default="hard",
    show_default=True,
    help=f"Pruning method: {', '.join((*methods_of_trained_runs(), *METHODS.added()))}.",
)
@out_option("sparse run")
@machine_options
@cache_option
@json_option
def command(
    run: Path,
    overrides: tuple[str, ...],
    method: str,
    out: Path,
    device: str | None,
    precision: str | None,
    devices: int | None,
    nodes: int | None,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Prune a trained model and train the kept weights.

    hard removes the smallest weights at once. lottery does the same, then resets the kept weights to their initial values; it
    uses the masks of a run that is already sparse. gradual and supermask start from the trained weights. The config is the
    run's own, changed by KEY=VALUE.

    \b
    Example:
      capprune prune runs/dense pruning.sparsity=0.975 --method hard --out runs/hard
    """
    place = placed(devices, nodes)
    sparse = prune(
        run,
        method=method,
        overrides=overrides,
        out=out,
        device=device,
        precision=precision,
        cache=cache,
        progress=progress_of(place),
    )
    show(sparse, as_json, place)
