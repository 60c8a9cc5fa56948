"""`capprune inspect`: show the contents of a run or a bundle, weight by weight and file by file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capprune.api.inspection import BundleInspection, RunInspection, inspect
from capprune.cli.console import Place, echo, emit, json_option, table

if TYPE_CHECKING:
    from capprune_exporters.ledger import LedgerFile, LedgerLine

LARGEST = 8  # number of tensors shown per model
NAME = 24  # number of characters shown of a name, from its end


@click.command()
@click.argument("folder", type=Place(), metavar="RUN|BUNDLE")
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Show the contents of a run or a bundle.

    For a run, its sparsity layer by layer. For a bundle, its files and the storage of each weight tensor.

    \b
    Example:
      capprune inspect runs/sparse
      capprune inspect bundles/sparse
    """
    found = inspect(folder)
    emit(
        found.as_json(), as_json, lambda: _show_run(found) if isinstance(found, RunInspection) else _show_bundle(found)
    )


def _show_run(run: RunInspection) -> None:
    table(str(run.folder), *run.cells())
    for sign in run.signs:
        for line in sign.lines():
            echo(line)
    if run.validation_loss is not None and not run.signs:
        echo(f"training: no warning after the last epoch, {run.validation_loss:.3f} nats per word on val")


def _show_bundle(bundle: BundleInspection) -> None:
    sizes = [[name, f"{len(data):,}"] for name, data in bundle.bundle.files.items()]
    removed = f"{bundle.bundle.manifest.pruning.sparsity:.2%} of the prunable weights removed"
    table(f"{bundle.place}: {bundle.size_bytes:,} bytes, {removed}", ["file", "bytes"], sizes)
    for file in bundle.ledger:
        _show_ledger(file)
    echo(
        f"whole bundle: {bundle.size_bytes:,} bytes instead of {bundle.dense_bytes:,} in dense float32: "
        f"{bundle.dense_bytes / bundle.size_bytes:.1f}x smaller"
    )


def _show_ledger(file: LedgerFile) -> None:
    weights = sorted((line for line in file.lines if line.shape), key=lambda line: -line.file_bytes)
    shown, rest = weights[:LARGEST], weights[LARGEST:]
    rows = [
        [line.tensor[-NAME:], line.form, line.kernel, *_numbers(line)]
        for line in (*shown, *(line for line in file.lines if not line.shape))
    ]
    if rest:
        more = [
            str(sum(size))
            for size in zip(*((one.dense_bytes, one.kept_bytes, one.file_bytes) for one in rest), strict=True)
        ]
        rows.insert(
            len(shown), [f"{len(rest)} smaller ones", "", "", *(f"{int(size):,}" for size in more), "", "", "", ""]
        )
    rows.append(
        ["all", "", "", f"{file.dense_bytes:,}", "", f"{file.size_bytes:,}", f"{file.packed_bytes:,}", "", "", ""]
    )
    columns = [
        "tensor",
        "stored as",
        "runs as",
        "dense",
        "kept",
        "in file",
        "packed",
        "floor",
        "/ floor",
        "bits / kept",
    ]
    table(f"{file.name}, in bytes", columns, rows)


def _numbers(line: LedgerLine) -> list[str]:
    sizes = [f"{size:,}" for size in (line.dense_bytes, line.kept_bytes, line.file_bytes)]
    return [
        *sizes,
        f"{line.packed_bytes:,}",
        "" if line.floor_bytes is None else f"{line.floor_bytes:,.0f}",
        "" if line.ratio_to_floor is None else f"{line.ratio_to_floor:.3f}",
        "" if line.bits_per_kept is None or not line.shape else f"{line.bits_per_kept:.2f}",
    ]
