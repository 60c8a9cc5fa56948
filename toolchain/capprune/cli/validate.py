"""`capprune validate`: measure a bundle on a split: quality, parity with the trained model, size, speed, gates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capprune.api.validation import quality_table, validate
from capprune.cli.console import Place, echo, emit, json_option, table, threads_option
from capprune.cli.progress import TerminalProgress
from capprune.devices.schemes import LOCAL, forms, python_forms
from capprune_runtime.formats import RUNTIMES

if TYPE_CHECKING:
    from capprune.validation.results import Results


@click.command()
@click.argument("bundle", type=Place(), required=False)
@click.option("--data", "folder", type=Place(file_okay=False), required=True, help="Photos and captions.")
@click.option("--split", default="test", show_default=True, help="Split of the photos.")
@click.option("--limit", type=click.IntRange(1), help="Use only the first N photos of the split.")
@click.option("--reference", type=Place(file_okay=False), help="The run that the bundle was exported from.")
@click.option(
    "--max-drop", help="Largest relative loss of CIDEr-D compared with --reference, which is required.  [default: 2%]"
)
@click.option("--max-bytes", help="Largest size of the whole bundle, such as 4MB.")
@click.option("--beam", type=click.IntRange(1, 100), help="Beam width.  [default: the bundle's]")
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help=f"auto, {', '.join(RUNTIMES)}.",
)
@click.option("--also", multiple=True, metavar="RUNTIME", help="Check parity with --reference in this interpreter too.")
@click.option("--device", "spec", default=LOCAL, show_default=True, help=f"{forms()}.")
@click.option("--python", help=f"The Python on {python_forms()}.  [default: ~/capprune's, or python3]")
@click.option("--record", is_flag=True, help="Write the results into the bundle, as quality.json.")
@click.option(
    "--known",
    multiple=True,
    type=Place(file_okay=False),
    help="With --split val --record: further data that the bundle was trained on.",
)
@threads_option
@json_option
def command(
    bundle: Path | None,
    folder: Path,
    split: str,
    limit: int | None,
    reference: Path | None,
    max_drop: str | None,
    max_bytes: str | None,
    beam: int | None,
    runtime: str,
    also: tuple[str, ...],
    spec: str,
    python: str | None,
    record: bool,
    known: tuple[Path, ...],
    threads: int,
    as_json: bool,
) -> None:
    """Caption a split with a bundle, here or on a device, and measure quality, parity, size and speed.

    The default BUNDLE is the package's own.

    With --reference, the trained model captions the same photos in torch. Every caption must be the same, token by token,
    and CIDEr-D must not drop by more than --max-drop. If a limit is exceeded, the exit code is 3.

    \b
    Example:
      capprune validate bundles/sparse --data flickr8k --reference runs/sparse --max-drop 2% --max-bytes 30MB
      capprune validate bundles/sparse --data flickr8k --limit 100 --device ssh:pi@raspberrypi.local
    """
    result = validate(
        bundle,
        data=folder,
        split=split,
        limit=limit,
        reference=reference,
        max_drop=max_drop,
        max_bytes=max_bytes,
        beam=beam,
        runtime=runtime,
        also=also,
        device=spec,
        python=python,
        record=record,
        known=known,
        threads=threads,
        progress=TerminalProgress(),
    )
    emit(result.as_json(), as_json, lambda: show(result.results))
    if result.failure is not None and as_json:
        raise SystemExit(result.failure.exit_code)  # the document holds the message
    result.raise_if_failed()


def show(results: Results) -> None:
    """Print the results as tables."""
    bundle = results.bundle
    table(*quality_table(results))
    _show_health(results)
    _show_times(results)
    echo(f"{bundle.total_bytes:,} bytes; {bundle.kept_weights:,} of {bundle.prunable_weights:,} weights kept")
    for runtime, parity in results.parity.items():
        verdict = "holds" if parity.holds else "DOES NOT HOLD"
        echo(f"parity with torch in {runtime}: {parity.identical} of {parity.photos} captions identical, {verdict}")


def _show_times(results: Results) -> None:
    latency, where, verdict = results.latency, results.environment, results.measurement.verdict
    memory = results.measurement.memory.peak_rss_bytes
    table(
        f"{where.model or where.cpu_model}: {where.runtime} {where.runtime_version}, {where.threads} thread"
        + (f", {memory / 1e6:.0f} MB of memory" if memory is not None else ""),
        ["part", "p50 µs", "p90 µs", "p99 µs", "calls"],
        [
            [name, f"{part.p50_us:,.0f}", f"{part.p90_us:,.0f}", f"{part.p99_us:,.0f}", f"{part.count:,}"]
            for name, part in (("encode", latency.encode), ("step", latency.step), ("caption", latency.caption))
        ],
    )
    for reason in verdict.reasons:
        echo(f"do not trust these times: {reason.text}")


def _show_health(results: Results) -> None:
    """Print signs of degenerate captions, which scores do not show."""
    from capprune.metrics.health import COLUMNS

    reference = results.reference
    found = [] if reference is None else [(f"trained ({reference.name})", reference.health)]
    rows = [[name, *health.cells()] for name, health in (*found, ("this bundle", results.quality.health))]
    table("captions", ["model", *COLUMNS], rows)
