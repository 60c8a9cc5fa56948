"""`capprune bench`: how fast a bundle is, in turns with the same model in every other form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import Place, bar, echo, emit, json_option, say, table, threads_option
from capprune.devices.schemes import LOCAL, forms, python_forms

if TYPE_CHECKING:
    from capprune.devices import Device
    from capprune.metrics.speed import SpeedRow
    from capprune_runtime.bundle.verify import Bundle
    from capprune_runtime.measure.results import Measurement

ROUNDS = 30  # written here too, so that --help imports nothing; a test holds the two together


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
    from capprune.devices import open_device
    from capprune.ready import ready_bundle
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.errors import UsageError

    if run is not None and not baselines:
        raise UsageError("a run is for making rivals", where="--run", hint="add --baselines")
    device = open_device(spec, python=python)
    document, rows, measurements = bench(
        verify_bundle(bundle or ready_bundle()),
        baselines=baselines,
        run=run,
        rounds=rounds,
        beam=beam,
        threads=threads,
        device=device,
    )
    emit(document, as_json, lambda: show(rows, measurements, rounds, onnx_left_out=baselines and run is None))


def bench(
    bundle: Bundle,
    *,
    baselines: bool = False,
    run: Path | None = None,
    rounds: int = ROUNDS,
    beam: int | None = None,
    threads: int = 1,
    device: Device | None = None,
) -> tuple[dict[str, Any], tuple[SpeedRow, ...], tuple[Measurement, ...]]:
    """Time a bundle and, if wanted, its rivals; on this machine when no device is given.

    Returns:
        The document, its rows, and the measurements that they come from.

    Raises:
        UsageError: The run is not the bundle's, or the bundle needs one for its rivals.
        DeviceError: The device cannot be reached or used.
        BundleError: A bundle cannot be run.
    """
    from capprune.devices import BenchJob, open_device
    from capprune.metrics.speed import compare
    from capprune_runtime.measure.bench import bench_document

    names, rivals = _rivals(bundle, run) if baselines else (["this bundle"], [])
    job = BenchJob([bundle, *rivals], rounds=rounds, beam=beam, threads=threads)
    with bar("rounds") as tell:
        measurements = (device or open_device(LOCAL)).bench(job, tell)
    rows = compare(measurements, names)
    document = bench_document(measurements) | {"names": names, "comparison": [row.as_json() for row in rows]}
    return document, rows, measurements


def _rivals(bundle: Bundle, run: Path | None) -> tuple[list[str], list[Bundle]]:
    """The names of all rows, the bundle's own first, and the rivals, verified."""
    from capprune_exporters.rivals import own_form, rival_bundle, tflite_rivals, verified
    from capprune_runtime.errors import UsageError
    from capprune_runtime.formats import model_kind

    if run is not None:
        from capprune.exporting.rivals import rivals_of_run
        from capprune.training.run import load_run

        found = rivals_of_run(load_run(run), bundle, say)
    elif model_kind(bundle.decoder) == "tflite":
        found = [(rival, bundle.encoder) for rival in tflite_rivals(bundle.decoder)]
    else:
        raise UsageError("the rivals of an ONNX bundle are made from its run", where=bundle.place, hint="add --run RUN")
    own = own_form(bundle, tuple(rival for rival, _ in found))
    others = [(rival, encoder) for rival, encoder in found if (rival.kind, rival.name) != ("tflite", own)]
    names = [f"this bundle: {own or 'its own plan'}", *(f"{rival.kind} {rival.name}" for rival, _ in others)]
    return names, [verified(rival_bundle(bundle, rival, encoder)) for rival, encoder in others]


def show(
    rows: tuple[SpeedRow, ...], measurements: tuple[Measurement, ...], rounds: int, *, onnx_left_out: bool
) -> None:
    """The rows as a table, and what to read it with."""
    from capprune.metrics.speed import doubts

    where = measurements[0].environment
    told = not (where.emulated or where.stand_in)
    threads = "one thread" if where.threads == 1 else f"{where.threads} threads"
    title = f"{where.model or where.cpu_model}, {threads}, {rounds} rounds in turns; times in µs"
    if not told:
        title += "; emulated or a stand-in: these times mean nothing"
    table(title, ["model", "runs in", "step p50", "95 % interval", "p90", "p99", "caption p50", "decoder bytes",
                  "bundle bytes", "this bundle is"],
          [_cells(row) for row in rows],
          note="step: one word, one row. bundle bytes: without golden photos")  # fmt: skip
    for text in doubts(measurements):
        echo(f"do not trust these times: {text}")
    if onnx_left_out:
        echo("ONNX forms are made from the run: add --run RUN")


def _cells(row: SpeedRow) -> list[str]:
    from capprune.metrics.speed import factor

    step = row.latency.step
    return [
        row.name,
        row.runtime,
        f"{step.p50_us:,.0f}",
        f"{row.step.low:,.0f} to {row.step.high:,.0f}",
        f"{step.p90_us:,.0f}",
        f"{step.p99_us:,.0f}",
        f"{row.latency.caption.p50_us:,.0f}",
        f"{row.decoder_bytes:,}",
        f"{row.total_bytes:,}",
        factor(row),
    ]
