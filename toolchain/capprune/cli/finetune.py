"""`capprune finetune`: train a run further with fixed masks."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.run import finetune
from capprune.cli.console import Place, cache_option, json_option, out_option
from capprune.cli.machine import machine_options, placed, progress_of
from capprune.cli.train import show

OBJECTIVES = (
    "cross_entropy",
    "scst",
)  # a copy, so that --help imports no config; a test compares the two


@click.command()
@click.argument("run", type=Place(file_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    default="cross_entropy",
    show_default=True,
    help="Training objective: the next word of human captions, or the score of whole captions.",
)
@click.option(
    "--teacher",
    type=Place(file_okay=False),
    multiple=True,
    help="A run, usually the dense one, whose scores are learned as well; given several times, the mean of these runs.",
)
@out_option("tuned run")
@machine_options
@cache_option
@json_option
def command(
    run: Path,
    overrides: tuple[str, ...],
    objective: str,
    teacher: tuple[Path, ...],
    out: Path,
    device: str | None,
    precision: str | None,
    devices: int | None,
    nodes: int | None,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Train a run further with fixed masks.

    \b
    Example:
      capprune finetune runs/sparse --teacher runs/dense --out runs/tuned
      capprune finetune runs/tuned --objective scst --out runs/scst
    """
    place = placed(devices, nodes)
    tuned = finetune(
        run,
        objective=objective,
        teacher=teacher,
        overrides=overrides,
        out=out,
        device=device,
        precision=precision,
        cache=cache,
        progress=progress_of(place),
    )
    show(tuned, as_json, place)
