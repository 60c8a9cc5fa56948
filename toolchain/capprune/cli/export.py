"""`capprune export`: a run in, a bundle out, proven on its golden photos."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import Place, echo, emit, given, json_option, out_option, say, table
from capprune_exporters.targets.registry import TARGETS
from capprune_exporters.weight_forms import Weights

if TYPE_CHECKING:
    from capprune.exporting import Exported

DEFAULT_BEAM = 3  # written here too, so that --help imports no torch; a test holds the two together


@click.command()
@click.argument("run", type=Place(file_okay=False))
@click.option("--target", default="tflite", show_default=True, help=f"{' or '.join(TARGETS.names())}.")
@click.option("--weights", default="float32", show_default=True, help=f"Of the decoder: {', '.join(Weights)}.")
@click.option(
    "--encoder-weights",
    help="float32, weight_only_int8 (a quarter of the bytes), or static_int8 (calibrated on photos of --data)."
    "  [default: float32, or weight_only_int8 with quantised --weights]",
)
@click.option(
    "--plan",
    default="size",
    show_default=True,
    metavar="size|auto|FILE",
    help="How each matrix is stored: small by a fixed rule, fastest as measured here, or as a JSON file says.",
)
@click.option(
    "--data",
    type=Place(file_okay=False),
    help="Photos and captions to measure on what int8 costs.  [default: the run's own, where they are]",
)
@click.option("--photos", type=click.IntRange(1), default=1000, show_default=True, help="Of val, at most so many.")
@click.option("--pack", "packed", is_flag=True, help="Write BUNDLE.capz beside the bundle too.")
@click.option(
    "--beam", type=click.IntRange(1, 100), default=DEFAULT_BEAM, show_default=True, help="The bundle's own beam."
)
@out_option("bundle", new=True)
@json_option
def command(
    run: Path,
    target: str,
    weights: str,
    encoder_weights: str | None,
    plan: str,
    data: Path | None,
    photos: int,
    packed: bool,
    beam: int,
    out: Path,
    as_json: bool,
) -> None:
    """Turn a run into a bundle that a device can run.

    The masked matrices of `step` become sparse tensors of the stock runtime, the rest is stored small and expanded once.
    The bundle is verified, and its golden photos must give the tokens that the trained model gave. With int8 or a codebook,
    what that costs in CIDEr-D is measured on val, and tensors for which it costs too much stay in float32.

    \b
    Example:
      capprune export runs/sparse --target tflite --out bundles/sparse
      capprune export runs/sparse --weights int8 --plan auto --pack --out bundles/small
    """
    from capprune.exporting import Wanted, export
    from capprune.training.run import load_run
    from capprune_runtime.atomic import check_file_place

    if packed:
        check_file_place(_packed_place(out))
    began = time.monotonic()
    unused = [f"--{name}" for name in ("data", "photos") if given(name)]
    if unused and weights == "float32" and encoder_weights in (None, "float32"):
        are = "is" if len(unused) == 1 else "are"
        say(f"note: {' and '.join(unused)} {are} not used: with float32 weights there is no loss to measure")
    loaded = load_run(run)
    wanted = Wanted(
        target=target,
        weights=weights,
        encoder_weights=encoder_weights,
        plan=plan if plan in ("size", "auto") else _read_plan(Path(plan)),
        beam=beam,
        data=data or _own_data(loaded.config.data.folder),
        photos=photos,
    )
    made = export(loaded, out, wanted, say)
    capz = _pack(out) if packed else None
    seconds = time.monotonic() - began
    document = _document(made, target, seconds) | ({} if capz is None else {"capz": capz})
    emit(document, as_json, lambda: _show(made, document, run))


def _own_data(folder: Path) -> Path | None:
    """The data that the run was trained on, if it is still there."""
    return folder if folder.is_dir() else None


def _read_plan(path: Path) -> dict[str, str]:
    """Forms by tensor name, from a file of just that or from the plan.json of a bundle."""
    from capprune_runtime import strict_json
    from capprune_runtime.errors import BundleError, UsageError

    expected = 'size, auto, or a JSON file such as {"output.weight": "dense_int8"} or a bundle\'s plan.json'
    try:
        tree = strict_json.parse(path.read_bytes())
    except OSError as error:
        raise UsageError("there is no such plan", where="--plan", expected=expected, found=path) from error
    except BundleError as error:
        raise UsageError("a plan cannot be read", where=path, expected=expected, found=error.what) from error
    if isinstance(tree, dict) and isinstance(tree.get("lines"), list):
        lines = [line for line in tree["lines"] if isinstance(line, dict)]
        tree = {line.get("tensor"): line.get("form") for line in lines}
    if not isinstance(tree, dict) or not all(isinstance(item, str) for pair in tree.items() for item in pair):
        raise UsageError("a plan cannot be read", where=path, expected=expected)
    return tree


def _pack(bundle: Path) -> dict[str, Any]:
    from capprune_exporters.pack.capz import pack

    place = _packed_place(bundle)
    pack(bundle, place)
    return {"file": str(place), "bytes": place.stat().st_size}


def _packed_place(bundle: Path) -> Path:
    from capprune_runtime.bundle.capz import CAPZ_SUFFIX

    return bundle.with_name(bundle.name + CAPZ_SUFFIX)


def _document(made: Exported, target: str, seconds: float) -> dict[str, Any]:
    sizes = {name: entry.size_bytes for name, entry in made.bundle.manifest.files.items()}
    return {
        "bundle": str(made.bundle.place),
        "target": target,
        "seconds": seconds,
        "files": sizes,
        "decoder": [
            {
                "tensor": t.name,
                "operator": t.operator,
                "shape": t.shape,
                "kept": t.kept,
                "form": t.form,
                "bytes": t.size_bytes,
            }
            for t in made.tensors
        ],
        "plan": json.loads(made.bundle.files["plan.json"]),
    }


def _show(made: Exported, document: dict[str, Any], run: Path) -> None:
    from capprune_exporters.targets.target import find_target

    reasons = {line.tensor: line.reason for line in made.plan.lines}
    rows = [
        [t.name, "x".join(map(str, t.shape)), f"{t.sparsity:.2%}", t.form, f"{t.size_bytes:,}", reasons.get(t.name, "")]
        for t in made.tensors
    ]
    table("decoder", ["tensor", "weights", "sparse", "stored as", "bytes", "why"], rows)
    bundle, sizes = made.bundle.place, document["files"]
    total = sum(sizes.values())
    decoder = sizes[made.bundle.manifest.decoder.file]
    echo(find_target(document["target"]).summary)
    echo(f"exported {bundle} in {document['seconds']:.0f} s: {total:,} bytes, decoder {decoder:,}")
    if "capz" in document:
        echo(f"packed {document['capz']['file']}: {document['capz']['bytes']:,} bytes")
    echo(f"next: capprune validate {bundle} --data FOLDER --reference {run}")
