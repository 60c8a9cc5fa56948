"""`capprune inspect`: what a run or a bundle consists of, weight by weight and file by file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import emit, json_option, table

if TYPE_CHECKING:
    from capprune_runtime.tflite_file import Tensor, TfliteModel

LARGEST = 8  # tensors of each model that are shown


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Show what a run or a bundle consists of.

    For a run: its sparsity, layer by layer. For a bundle: its files, and how each weight tensor is stored.

    \b
    Example:
      capprune inspect runs/sparse
      capprune inspect bundles/sparse
    """
    from capprune_runtime.errors import UsageError

    if (folder / "manifest.json").is_file():
        _inspect_bundle(folder, as_json)
    elif (folder / "config.yaml").is_file():
        _inspect_run(folder, as_json)
    else:
        raise UsageError(
            "this is neither a run nor a bundle", where=folder, expected="a config.yaml or a manifest.json in it"
        )


def _inspect_run(folder: Path, as_json: bool) -> None:
    from capprune.training.run import load_run

    run = load_run(folder)
    layers: list[dict[str, Any]] = [
        {"weights": name, "shape": list(mask.shape), "kept": int(mask.sum()), "of": mask.numel()}
        for name, mask in run.masks.items()
    ]
    document: dict[str, Any] = {"run": str(folder), "kept": run.kept, "prunable": run.prunable, "layers": layers}
    document |= {"checkpoint": dict(run.facts), "words": len(run.vocabulary)}

    def show() -> None:
        rows = [
            [one["weights"], "x".join(map(str, one["shape"])), f"{one['kept']:,}", f"{1 - one['kept'] / one['of']:.2%}"]
            for one in layers
        ]
        rows.append(["all", "", f"{run.kept:,}", f"{1 - run.kept / run.prunable:.2%}"])
        table(f"{folder}", ["weights", "shape", "kept", "sparse"], rows)

    emit(document, as_json, show)


def _inspect_bundle(folder: Path, as_json: bool) -> None:
    from capprune_runtime.tflite_check import check_tflite
    from capprune_runtime.verify import verify_bundle

    bundle = verify_bundle(folder)
    manifest = bundle.manifest
    sizes = {name: entry.size_bytes for name, entry in manifest.files.items()}
    models = {
        name: _tensors(check_tflite(data, name, signature))
        for name, data, signature in (
            (manifest.encoder.file, bundle.encoder, manifest.encoder.signature),
            (manifest.decoder.file, bundle.decoder, manifest.decoder.signature),
        )
    }

    def show() -> None:
        table(
            f"{folder}: {sum(sizes.values()):,} bytes, {manifest.pruning.sparsity:.2%} of the decoder's weights removed",
            ["file", "bytes"],
            [[name, f"{size:,}"] for name, size in sizes.items()],
        )
        for name, tensors in models.items():
            largest = sorted(tensors, key=lambda one: -int(one["bytes"]))[:LARGEST]
            rows = [[str(one["name"]), str(one["shape"]), str(one["form"]), f"{one['bytes']:,}"] for one in largest]
            table(f"{name}: largest tensors", ["tensor", "shape", "stored as", "bytes"], rows)

    emit({"bundle": str(folder), "manifest": manifest.as_json(), "models": models}, as_json, show)


def _tensors(model: TfliteModel) -> list[dict[str, Any]]:
    """Every constant tensor: name, shape, how it is stored and the bytes of its values and indices."""
    return [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "form": _form(tensor),
            "bytes": len(model.buffers[tensor.buffer]) + _index_bytes(tensor),
        }
        for tensor in model.tensors
        if model.is_constant(tensor)
    ]


def _form(tensor: Tensor) -> str:
    if tensor.sparsity is None:
        return f"dense {tensor.dtype}"
    blocks = [level.dense_size for level in tensor.sparsity.dimensions if not level.compressed][1:]
    return f"CSR {tensor.dtype}" if not blocks else f"1x{blocks[0]} blocks {tensor.dtype}"


def _index_bytes(tensor: Tensor) -> int:
    levels = tensor.sparsity.dimensions if tensor.sparsity else ()
    return sum(int(level.segments.nbytes + level.indices.nbytes) for level in levels if level.compressed)
