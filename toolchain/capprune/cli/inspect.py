"""`capprune inspect`: what a run or a bundle consists of, weight by weight and file by file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import Place, echo, emit, json_option, table
from capprune.extras import require_extras

if TYPE_CHECKING:
    from capprune_exporters.ledger import LedgerFile, LedgerLine
    from capprune_runtime.bundle.verify import Bundle

LARGEST = 8  # tensors of each model that are shown
NAME = 24  # characters of a name that are shown, from its end


@click.command()
@click.argument("folder", type=Place(), metavar="RUN|BUNDLE")
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

    if folder.is_file() or (folder / "manifest.json").is_file():
        _inspect_bundle(folder, as_json)
    elif (folder / "config.yaml").is_file():
        require_extras("inspect RUN")
        _inspect_run(folder, as_json)
    else:
        raise UsageError(
            "this is neither a run nor a bundle", where=folder, expected="a config.yaml or a manifest.json in it"
        )


def _inspect_run(folder: Path, as_json: bool) -> None:
    from capprune.training.health import signs_of, validation_loss
    from capprune.training.run import load_run, read_metrics

    run = load_run(folder)
    metrics = read_metrics(folder)
    signs, loss = signs_of(metrics), validation_loss(metrics)
    layers: list[dict[str, Any]] = [
        {
            "weights": name,
            "shape": list(mask.shape),
            "weights_per_gate": run.widths[name],
            "kept": int(mask.sum()),
            "of": mask.numel(),
        }
        for name, mask in run.masks.items()
    ]
    document: dict[str, Any] = {"run": str(folder), "kept": run.kept, "prunable": run.prunable, "layers": layers}
    document |= {"validation_loss": loss, "warnings": [sign.as_json() for sign in signs]}
    document |= {"checkpoint": dict(run.facts), "words": len(run.vocabulary), "tokens": run.vocabulary.coding.kind}

    def show() -> None:
        rows = [
            [
                one["weights"],
                "x".join(map(str, one["shape"])),
                "single" if one["weights_per_gate"] == 1 else f"1x{one['weights_per_gate']}",
                f"{one['kept']:,}",
                f"{1 - one['kept'] / one['of']:.2%}",
            ]
            for one in layers
        ]
        rows.append(["all", "", "", f"{run.kept:,}", f"{1 - run.kept / run.prunable:.2%}"])
        table(f"{folder}", ["weights", "shape", "gates", "kept", "sparse"], rows)
        for sign in signs:
            for line in sign.lines():
                echo(line)
        if loss is not None and not signs:
            echo(f"training: no warning after the last epoch, {loss:.3f} nats a word on val")

    emit(document, as_json, show)


def _inspect_bundle(folder: Path, as_json: bool) -> None:
    from capprune_exporters.ledger import read_ledger
    from capprune_runtime.bundle.verify import verify_bundle

    bundle = verify_bundle(folder)
    files = read_ledger(bundle)
    manifest = bundle.manifest
    document = {
        "bundle": str(folder),
        "manifest": manifest.as_json(),
        "ledger": [_as_json(file) for file in files],
        "total": {"bytes": _size(bundle), "dense_bytes": _dense_size(bundle, files)},
    }

    def show() -> None:
        sizes = [[name, f"{len(data):,}"] for name, data in bundle.files.items()]
        removed = f"{manifest.pruning.sparsity:.2%} of the prunable weights removed"
        table(f"{folder}: {_size(bundle):,} bytes, {removed}", ["file", "bytes"], sizes)
        for file in files:
            _show_ledger(file)
        dense = _dense_size(bundle, files)
        echo(
            f"whole bundle: {_size(bundle):,} bytes; dense float32 it would take {dense:,}: {dense / _size(bundle):.1f} times"
        )

    emit(document, as_json, show)


def _size(bundle: Bundle) -> int:
    return sum(len(data) for data in bundle.files.values())


def _dense_size(bundle: Bundle, files: tuple[LedgerFile, ...]) -> int:
    return _size(bundle) + sum(file.dense_bytes - file.size_bytes for file in files)


def _as_json(file: LedgerFile) -> dict[str, Any]:
    lines = [
        asdict(line) | {"bits_per_kept": line.bits_per_kept, "ratio_to_floor": line.ratio_to_floor}
        for line in file.lines
    ]
    totals = {"bytes": file.size_bytes, "packed_bytes": file.packed_bytes, "dense_bytes": file.dense_bytes}
    return {"file": file.name, "lines": lines, **totals}


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
