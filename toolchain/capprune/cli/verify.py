"""`capprune verify`: check the bytes of a bundle against its manifest, and its structure against the verifier's rules."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.bundle import verify
from capprune.cli.console import Place, echo, emit, json_option


@click.command()
@click.argument("bundle", type=Place())
@click.option("--golden/--no-golden", default=True, help="Also caption the golden photos and compare the tokens.")
@json_option
def command(bundle: Path, golden: bool, as_json: bool) -> None:
    """Verify every byte of a bundle before it is run.

    \b
    Example:
      capprune verify bundles/sparse
    """
    verified = verify(bundle, golden=golden)

    def show() -> None:
        echo(f"{bundle}: {verified.files} files unchanged, both models pass the verifier")
        if golden:
            count = len(verified.proof)
            echo(f"golden photos: {count - len(verified.different)} of {count} give the trained model's tokens")
        for one in verified.different:  # shown, but not an error: int8 kernels of another CPU may choose another word
            echo(f"  {one.golden.name}: expected {one.golden.caption!r}, found {one.said.text!r}")

    emit(verified.as_json(), as_json, show)
