"""`capprune pack`: pack a bundle into one entropy-coded file, for download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capprune.api.bundle import pack
from capprune.cli.console import Place, echo, emit, json_option, out_file_option, table
from capprune.cli.progress import TerminalProgress

if TYPE_CHECKING:
    from capprune_exporters.pack.capz import PackReport


@click.command()
@click.argument("bundle", type=Place())
@out_file_option(
    metavar="FILE.capz",
    help="The packed bundle; an existing file is replaced.  [default: BUNDLE.capz, beside the bundle]",
)
@json_option
def command(bundle: Path, out: Path | None, as_json: bool) -> None:
    """Pack a bundle into one small file.

    Positions and values of the weights are entropy coded, all else is compressed by zlib. The file expands to exactly the
    same bytes, which is verified before the file gets its name.

    \b
    Example:
      capprune pack bundles/sparse --out sparse.capz
    """
    packed = pack(bundle, out=out, progress=TerminalProgress())
    emit(packed.as_json(), as_json, lambda: _show(packed.report))


def _show(report: PackReport) -> None:
    tensors = [one for one in report.tensors if len(one.shape) > 1]
    rows = [
        [one.file, "x".join(map(str, one.shape)), *(f"{n:,}" for n in (one.kept, one.file_bytes, one.coded_bytes))]
        for one in sorted(tensors, key=lambda one: -one.coded_bytes)[:8]
    ]
    table("largest weights", ["file", "weights", "kept", "bytes", "packed"], rows)
    files = [[one.name, one.coding, f"{one.size_bytes:,}", f"{one.packed_bytes:,}"] for one in report.files]
    table("files", ["file", "coded as", "bytes", "packed"], files)
    share = report.packed_bytes / report.bundle_bytes
    echo(f"packed {report.place}: {report.packed_bytes:,} of {report.bundle_bytes:,} bytes ({share:.1%})")
    echo(f"next: capprune verify {report.place}")
