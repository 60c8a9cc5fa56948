"""`capprune export`: a run in, a bundle out, proven on its golden photos."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from capprune.cli.console import emit, json_option, out_option, say, table

DEFAULT_BEAM = 3  # written here too, so that --help imports no torch; a test holds the two together


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("--target", default="tflite", show_default=True, help="tflite")
@click.option("--encoder-weights", help="float32, or weight_only_int8: a quarter of the bytes.  [default: float32]")
@click.option(
    "--beam", type=click.IntRange(1, 100), default=DEFAULT_BEAM, show_default=True, help="The bundle's own beam."
)
@out_option("bundle")
@json_option
def command(run: Path, target: str, encoder_weights: str | None, beam: int, out: Path, as_json: bool) -> None:
    """Turn a run into a bundle that a device can run.

    The masked matrices of `step` become sparse tensors of the stock runtime, the rest is stored small and expanded once.
    The bundle is verified, and its golden photos must give the tokens that the trained model gave.

    \b
    Example:
      capprune export runs/sparse --target tflite --out bundles/sparse
    """
    from capprune.exporting import export
    from capprune.training.run import load_run

    began = time.monotonic()
    loaded = load_run(run)
    bundle, tensors = export(loaded, out, target=target, encoder_weights=encoder_weights, beam=beam, say=say)
    seconds = time.monotonic() - began
    sizes = {name: entry.size_bytes for name, entry in bundle.manifest.files.items()}

    def show() -> None:
        rows = [
            [t.operator.lower(), "x".join(map(str, t.shape)), f"{t.sparsity:.2%}", t.form, f"{t.size_bytes:,}"]
            for t in tensors
        ]
        table("decoder", ["operator", "weights", "sparse", "stored as", "bytes"], rows)
        total = sum(sizes.values())
        click.echo(f"exported {out} in {seconds:.0f} s: {total:,} bytes, decoder {sizes['decoder.tflite']:,}")
        click.echo(f"next: capprune validate {out} --data FOLDER --reference {run}")

    document: dict[str, Any] = {"bundle": str(out), "target": target, "seconds": seconds, "files": sizes}
    document["decoder"] = [
        {"operator": t.operator, "shape": t.shape, "kept": t.kept, "form": t.form, "bytes": t.size_bytes}
        for t in tensors
    ]
    emit(document, as_json, show)
