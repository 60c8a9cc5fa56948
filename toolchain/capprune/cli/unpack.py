"""`capprune unpack`: expand a packed bundle into a folder."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.bundle import unpack
from capprune.cli.console import Place, echo, emit, json_option, out_option


@click.command()
@click.argument("packed", type=Place(), metavar="FILE.capz")
@out_option("bundle", new=True)
@json_option
def command(packed: Path, out: Path, as_json: bool) -> None:
    """Expand a packed bundle into a folder.

    The bundle is verified before the folder gets its name. Commands that run a bundle also take a packed one.

    \b
    Example:
      capprune unpack sparse.capz --out bundles/sparse
    """
    bundle = unpack(packed, out=out)

    def show() -> None:
        count, size = len(bundle.files), sum(bundle.files.values())
        echo(f"unpacked {out}: {count} files, {size:,} bytes, both models pass the verifier")
        echo(f"next: capprune caption photo.jpg --bundle {out}")

    emit(bundle.as_json(), as_json, show)
