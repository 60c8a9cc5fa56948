"""`capprune prune`: a trained run in, a sparse one out."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.cli.console import Place, cache_option, json_option, out_option
from capprune.cli.train import derived, train_and_show

METHODS = ("hard", "lottery", "gradual", "supermask")


@click.command()
@click.argument("run", type=Place(file_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--method", type=click.Choice(METHODS), default="hard", show_default=True, help="How weights are chosen.")
@out_option("sparse run")
@cache_option
@json_option
def command(run: Path, overrides: tuple[str, ...], method: str, out: Path, cache: Path | None, as_json: bool) -> None:
    """Prune a trained model and train what is left.

    hard removes the smallest weights at once; lottery does, then goes back to the run's first weights (or takes over the
    masks of a run that is already sparse); gradual and supermask start from the trained weights. The config is the run's
    own, but for what KEY=VALUE says.

    \b
    Example:
      capprune prune runs/dense pruning.sparsity=0.975 --method hard --out runs/hard
    """
    config = derived(
        run, {"start": str(run), "name": f"{run.name}-{method}"}, {"method": method, "keep": ()}, {}, overrides
    )
    train_and_show(config, out, cache, as_json)
