"""`capprune import`: convert a checkpoint of the papers' code to a run."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.run import ImportedRun, import_
from capprune.cli.console import Place, echo, emit, json_option, out_option
from capprune.cli.progress import TerminalProgress


@click.command()
@click.argument("file", type=Place())
@out_option("run")
@json_option
def command(file: Path, out: Path, as_json: bool) -> None:
    """Convert a checkpoint of the published code to a run.

    FILE is a .pth with its config.json and tokenizer/ beside it, the folder of these, or the .zip archive as distributed.
    No code in it is executed: only tensors are read, and anything else in the file is refused.

    \b
    Example:
      capprune import TINY3_UpDownLSTM.zip --out runs/tiny3
    """
    run = import_(file, out=out, progress=TerminalProgress())
    emit(run.as_json(), as_json, lambda: _show(run))


def _show(run: ImportedRun) -> None:
    checkpoint = run.checkpoint
    sparsity = 1 - checkpoint.kept_weights / checkpoint.weights
    echo(f"imported {run.folder}: {len(checkpoint.tokens):,} tokens, {sparsity:.2%} sparse")
    echo(f"next: capprune export {run.folder} --out BUNDLE")
