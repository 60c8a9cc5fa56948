"""`capprune finetune`: a run in, the same masks and better weights out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from capprune.cli.console import Place, cache_option, json_option, out_option
from capprune.cli.train import derived, train_and_show

OBJECTIVES: dict[str, dict[str, Any]] = {
    "cross_entropy": {"learning_rate": 3e-4, "final_learning_rate": 1e-6, "epochs": 5},
    "scst": {"learning_rate": 1e-4, "final_learning_rate": 1e-6, "epochs": 5},
}


@click.command()
@click.argument("run", type=Place(file_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--objective",
    type=click.Choice(list(OBJECTIVES)),
    default="cross_entropy",
    show_default=True,
    help="The next word of people's captions, or the score of whole captions.",
)
@click.option(
    "--teacher",
    type=Place(file_okay=False),
    help="A run, mostly the dense one, whose scores are learned as well.",
)
@out_option("tuned run")
@cache_option
@json_option
def command(
    run: Path,
    overrides: tuple[str, ...],
    objective: str,
    teacher: Path | None,
    out: Path,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Train a run further with its masks as they are.

    \b
    Example:
      capprune finetune runs/sparse --teacher runs/dense --out runs/tuned
      capprune finetune runs/tuned --objective scst --out runs/scst
    """
    training = {"objective": objective, **OBJECTIVES[objective]}
    training["distillation"] = {"teacher": str(teacher) if teacher else None}
    pruning = {"method": "keep", "keep": (), "exclude": ()}  # every mask that there is
    changed = {"start": str(run), "name": f"{run.name}-tuned"}
    dropout = 0.0 if objective == "scst" else 1.0  # captions are sampled without dropout, and learned so
    config = derived(run, changed, pruning, training, overrides, dropout=dropout)
    train_and_show(config, out, cache, as_json)
