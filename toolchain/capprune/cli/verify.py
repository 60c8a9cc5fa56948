"""`capprune verify`: every byte of a bundle against its manifest, and its structure against the verifier's rules."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.cli.console import Place, echo, emit, json_option


@click.command()
@click.argument("bundle", type=Place())
@click.option("--golden/--no-golden", default=True, help="Also caption the golden photos and compare the tokens.")
@json_option
def command(bundle: Path, golden: bool, as_json: bool) -> None:
    """Check every byte of a bundle before anything runs it.

    \b
    Example:
      capprune verify bundles/sparse
    """
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.caption.isolated import prove_isolated

    verified = verify_bundle(bundle)
    files = len(verified.manifest.files)
    proof = prove_isolated(verified) if golden else ()
    different = [one for one in proof if not one.same]

    def show() -> None:
        echo(f"{bundle}: {files} files as written, both models pass the verifier")
        if golden:
            echo(f"golden photos: {len(proof) - len(different)} of {len(proof)} give the trained model's tokens")
        for one in different:  # shown, not refused: int8 kernels of another CPU may choose another word
            echo(f"  {one.golden.name}: expected {one.golden.caption!r}, found {one.said.text!r}")

    found = [
        {
            "photo": one.golden.name,
            "beam": one.golden.beam,
            "same": one.same,
            "expected": one.golden.caption,
            "found": one.said.text,
        }
        for one in proof
    ]
    emit({"bundle": str(bundle), "files": files, "golden": found}, as_json, show)
