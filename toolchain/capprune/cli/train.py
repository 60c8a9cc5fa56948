"""`capprune train`: train a run from a config."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.run import TrainedRun, train
from capprune.cli.console import Place, cache_option, echo, emit, json_option, out_option
from capprune.cli.machine import machine_options, placed, progress_of
from capprune.training.launch import Place as ProcessPlace


@click.command()
@click.argument("config", type=Place(dir_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@out_option("run")
@machine_options
@cache_option
@json_option
def command(
    config: Path,
    overrides: tuple[str, ...],
    out: Path,
    device: str | None,
    precision: str | None,
    devices: int | None,
    nodes: int | None,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Train a captioning model, dense or pruned during training.

    The same command resumes an interrupted run. A config with stages trains several runs in order, in sub-folders of --out.

    \b
    Example:
      capprune train configs/flickr8k_sparse.yaml data.folder=flickr8k --out runs/sparse
    """
    place = placed(devices, nodes)
    progress = progress_of(place)
    run = train(
        config, overrides=overrides, out=out, device=device, precision=precision, cache=cache, progress=progress
    )
    show(run, as_json, place)


def show(run: TrainedRun, as_json: bool, place: ProcessPlace) -> None:
    """Print the result of a training run, in its first process only. Used by `train`, `prune` and `finetune`."""
    if not place.first:
        return

    def human() -> None:
        out = run.folder
        echo(
            f"trained {out}: CIDEr-D {run.cider_d_val:.3f} on val (greedy), best after epoch {run.best_epoch + 1}"
            + (f", {run.sparsity:.2%} sparse" if run.prunes else "")
        )
        if run.settled:
            echo(
                f"its gates were still on their way to the target: {run.settled:,} were moved after the last step; "
                f"capprune finetune {out} --out {out.name}-tuned mends what that cost"
            )
        for sign in run.signs:
            for line in sign.lines():
                echo(line)
        echo(f"next: capprune export {out} --target tflite --out {out.name}-bundle")

    emit(run.as_json(), as_json, human)
