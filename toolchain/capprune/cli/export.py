"""`capprune export`: export a run as a bundle, verified on its golden photos."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.exporting import DEFAULT_BEAM, ExportedBundle, export
from capprune.cli.console import Place, echo, emit, given, json_option, out_option, say, table
from capprune.cli.progress import TerminalProgress
from capprune_exporters.targets.registry import TARGETS
from capprune_exporters.weight_forms import Weights
from capprune_runtime.bundle.manifest import MAX_NO_REPEAT


@click.command()
@click.argument("run", type=Place(file_okay=False))
@click.option("--target", default="tflite", show_default=True, help=f"{' or '.join(TARGETS.names())}.")
@click.option(
    "--weights",
    help=f"Form of the decoder's weights: {', '.join(Weights)}. float32 gives exactly the trained model's captions.  "
    "[default: int8]",
)
@click.option(
    "--encoder-weights",
    help="float32, weight_only_int8 (a quarter of the bytes), or static_int8 (calibrated on photos of --data)."
    "  [default: float32 with --weights float32; else static_int8 if its loss on val is small, or weight_only_int8]",
)
@click.option(
    "--plan",
    metavar="balanced|size|auto|FILE",
    help="How each matrix is stored: balanced (fastest within half of the bytes of dense int8), size (smallest), auto (fastest "
    "as measured on this machine), or a JSON file.  [default: balanced for tflite, size for onnx]",
)
@click.option(
    "--costs",
    metavar="NAME|FILE",
    help="Cost table of the target processor, measured by benchmarks/cost_table.py.  [default: x86-64]",
)
@click.option(
    "--data",
    type=Place(file_okay=False),
    help="Photos and captions for measuring the loss by int8.  [default: the run's own, if they exist]",
)
@click.option("--photos", type=click.IntRange(1), default=1000, show_default=True, help="Maximum number of val photos.")
@click.option("--pack", "packed", is_flag=True, help="Also write BUNDLE.capz beside the bundle.")
@click.option(
    "--beam",
    type=click.IntRange(1, 100),
    default=DEFAULT_BEAM,
    show_default=True,
    help="Default beam width of the bundle.",
)
@click.option(
    "--no-repeat-ngram",
    type=click.IntRange(0, MAX_NO_REPEAT),
    help="Length of the sequences of words that a caption holds at most once; 0 for no such limit.  [default: the run's]",
)
@out_option("bundle", new=True)
@json_option
def command(
    run: Path,
    target: str,
    weights: str | None,
    encoder_weights: str | None,
    plan: str | None,
    costs: str | None,
    data: Path | None,
    photos: int,
    packed: bool,
    beam: int,
    no_repeat_ngram: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Export a run as a bundle that a device can run.

    The masked matrices of `step` become sparse tensors of the stock runtime. All other tensors are stored in a smaller form and
    expanded once. The bundle is verified, and its golden photos must give the same tokens as the trained model. The loss of
    CIDEr-D by int8 or a codebook is measured on val. Tensors for which it is too large stay in float32.

    \b
    Example:
      capprune export runs/sparse --pack --out bundles/sparse
      capprune export runs/sparse --weights float32 --out bundles/exact
    """
    unused = [f"--{name}" for name in ("data", "photos") if given(name)]
    if unused and weights == "float32" and encoder_weights in (None, "float32"):
        are = "is" if len(unused) == 1 else "are"
        say(f"note: {' and '.join(unused)} {are} not used: float32 weights cause no loss to measure")
    bundle = export(
        run,
        out=out,
        target=target,
        weights=weights,
        encoder_weights=encoder_weights,
        plan=plan,
        costs=costs,
        data=data,
        photos=photos,
        pack=packed,
        beam=beam,
        no_repeat_ngram=no_repeat_ngram,
        progress=TerminalProgress(),
    )
    emit(bundle.as_json(), as_json, lambda: _show(bundle, run))


def _show(bundle: ExportedBundle, run: Path) -> None:
    from capprune_exporters.targets.target import find_target

    table("decoder", *bundle.cells())
    manifest = bundle.made.bundle.manifest
    sizes = {name: entry.size_bytes for name, entry in manifest.files.items()}
    echo(find_target(bundle.target).summary)
    if (predicted := bundle.made.predicted) is not None:
        echo(
            f"matrix products of a step: {predicted.plan_us:.0f} µs by the cost table {predicted.costs}, "
            f"{predicted.dense_int8_us:.0f} µs with every matrix dense in int8"
        )
        if predicted.slower:
            echo(_what_is_faster(bundle))
    echo(
        f"exported {bundle.place} in {bundle.seconds:.0f} s: {sum(sizes.values()):,} bytes, "
        f"decoder {sizes[manifest.decoder.file]:,}"
    )
    if bundle.packed is not None:
        echo(f"packed {bundle.packed}: {bundle.packed.stat().st_size:,} bytes")
    echo(f"next: capprune validate {bundle.place} --data FOLDER --reference {run}")


def _what_is_faster(bundle: ExportedBundle) -> str:
    """Return a note for a decoder that is smaller than dense int8 but slower."""
    plan = bundle.made.plan
    faster = ["pruning in blocks (pruning.block=1x16) is faster still"]
    if plan.weights != Weights.INT8:
        faster.insert(0, "--weights int8 lets matrices be computed in int8")
    else:
        if plan.made != "measured":
            faster.insert(0, "--plan auto takes the fastest form of each matrix on this machine")
        if plan.made not in ("balanced", "measured"):
            faster.insert(0, "--plan balanced trades bytes for time")
    return f"note: this decoder is smaller than dense int8 but slower: {', and '.join(faster)}"
