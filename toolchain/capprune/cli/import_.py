"""`capprune import`: a checkpoint of the papers' own code in, a run out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import Place, echo, emit, json_option, out_option, say

if TYPE_CHECKING:
    from capprune.importing.reference import ReferenceCheckpoint


@click.command()
@click.argument("file", type=Place())
@out_option("run")
@json_option
def command(file: Path, out: Path, as_json: bool) -> None:
    """Turn a checkpoint of the papers' own code into a run.

    FILE is a .pth with its config.json and tokenizer/ beside it, the folder of these, or the .zip archive as it was
    distributed. Nothing in it is run: the tensors are read, anything else in the file is refused.

    \b
    Example:
      capprune import TINY3_UpDownLSTM.zip --out runs/tiny3
    """
    from capprune.importing.reference import read_reference
    from capprune.importing.run import write_run

    checkpoint = read_reference(file)
    say(f"read {checkpoint.weights_file}: {checkpoint.kept_weights:,} of {checkpoint.weights:,} weights kept")
    write_run(checkpoint, out)
    emit(_document(checkpoint, out), as_json, lambda: _show(checkpoint, out))


def _document(checkpoint: ReferenceCheckpoint, out: Path) -> dict[str, Any]:
    return {
        "run": str(out),
        "weights_file": checkpoint.weights_file,
        "name": checkpoint.config.name,
        "vocabulary": len(checkpoint.tokens),
        "weights": checkpoint.weights,
        "kept": checkpoint.kept_weights,
        "tensors": {
            name: {"shape": list(mask.shape), "kept": int(mask.sum())} for name, mask in checkpoint.kept.items()
        },
    }


def _show(checkpoint: ReferenceCheckpoint, out: Path) -> None:
    sparsity = 1 - checkpoint.kept_weights / checkpoint.weights
    echo(f"imported {out}: {len(checkpoint.tokens):,} tokens, {sparsity:.2%} sparse")
    echo(f"next: capprune export {out} --out BUNDLE")
