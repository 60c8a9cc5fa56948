"""`capprune bench`: how fast a bundle is, in turns with the same model in every other form."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.bench import ROUNDS, BenchResult, bench
from capprune.cli.console import Place, echo, emit, json_option, table, threads_option
from capprune.cli.progress import TerminalProgress
from capprune.devices.schemes import LOCAL, forms, python_forms


@click.command()
@click.argument("bundle", type=Place(), required=False)
@click.option("--baselines", is_flag=True, help="Time the same model dense float32, dense int8 and sparse beside it.")
@click.option(
    "--run",
    type=Place(file_okay=False),
    help="The run that the bundle came from: brings its ONNX forms too.",
)
@click.option("--rounds", type=click.IntRange(1, 10_000), default=ROUNDS, show_default=True, help="Captions of each.")
@click.option("--beam", type=click.IntRange(1, 100), help="Hypotheses kept.  [default: the bundle's]")
@click.option("--device", "spec", default=LOCAL, show_default=True, help=f"{forms(benches=True)}.")
@click.option("--python", help=f"The Python on {python_forms()}.  [default: ~/capprune's, or python3]")
@threads_option
@json_option
def command(
    bundle: Path | None,
    baselines: bool,
    run: Path | None,
    rounds: int,
    beam: int | None,
    spec: str,
    python: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Time a bundle here or on a device, in turns with its honest rivals.

    A round is one caption of a golden photo by each of them, so that a slow moment meets all alike. Medians carry 95 %
    bootstrap intervals; how many times faster one is than another is told only where their intervals do not overlap, and
    never on an emulated processor. With --baselines the rivals are made from the bundle's own weights; --run adds ONNX.

    \b
    Example:
      capprune bench bundles/sparse --baselines
      capprune bench bundles/sparse --baselines --run runs/sparse --json > bench.json
      capprune bench bundles/sparse --baselines --device ssh:pi@raspberrypi.local
    """
    result = bench(
        bundle,
        baselines=baselines,
        run=run,
        rounds=rounds,
        beam=beam,
        device=spec,
        python=python,
        threads=threads,
        progress=TerminalProgress(),
    )
    emit(result.as_json(), as_json, lambda: show(result, onnx_left_out=baselines and run is None))


def show(result: BenchResult, *, onnx_left_out: bool) -> None:
    """Print the rows as a table, and what to know when reading it."""
    table(result.title, *result.cells(), note="step: one word, one row. bundle bytes: without golden photos")
    for text in result.doubts:
        echo(f"do not trust these times: {text}")
    if onnx_left_out:
        echo("ONNX forms are made from the run: add --run RUN")
