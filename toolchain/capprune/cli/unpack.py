"""`capprune unpack`: a packed bundle as the folder it was."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.cli.console import Place, echo, emit, json_option, out_option


@click.command()
@click.argument("packed", type=Place(), metavar="FILE.capz")
@out_option("bundle", new=True)
@json_option
def command(packed: Path, out: Path, as_json: bool) -> None:
    """Expand a packed bundle into a folder.

    The bundle is verified before the folder appears under its name. Commands that run a bundle take the packed one as well.

    \b
    Example:
      capprune unpack sparse.capz --out bundles/sparse
    """
    from capprune_exporters.pack.capz import unpack

    bundle = unpack(packed, out)
    sizes = {name: len(data) for name, data in sorted(bundle.files.items())}

    def show() -> None:
        echo(f"unpacked {out}: {len(sizes)} files, {sum(sizes.values()):,} bytes, both models pass the verifier")
        echo(f"next: capprune caption photo.jpg --bundle {out}")

    emit({"bundle": str(out), "file": str(packed), "files": sizes}, as_json, show)
