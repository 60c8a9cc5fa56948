"""Describes the contents of a run or a bundle, weight by weight and file by file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, needs
from capprune.api.html import html_table
from capprune.extras import require_extras
from capprune_runtime.errors import UsageError

if TYPE_CHECKING:
    from capprune.training.health import Sign
    from capprune_exporters.ledger import LedgerFile
    from capprune_runtime.bundle.verify import Bundle


@dataclass(frozen=True)
class Layer:
    """A pruned weight matrix of a run.

    Attributes:
        weights: Its name.
        shape: Its shape.
        weights_per_gate: Number of neighbours in a row that share a gate.
        kept: Number of kept weights.
        of: Total number of weights.
    """

    weights: str
    shape: tuple[int, ...]
    weights_per_gate: int
    kept: int
    of: int

    @property
    def sparsity(self) -> float:
        """Share of removed weights, 0 to 1."""
        return 1 - self.kept / self.of


@dataclass(frozen=True)
class RunInspection:
    """Contents of a run.

    Attributes:
        folder: The run's folder.
        kept: Number of kept weights among the prunable ones.
        prunable: Number of prunable weights.
        layers: The pruned weight matrices.
        validation_loss: Loss on val after the last epoch in nats per word; None if it was not measured.
        signs: Signs that the run was not learning.
        checkpoint: Facts of the checkpoint, as strings.
        words: Size of the vocabulary.
        tokens: Kind of the tokens: `words`, `characters`, `subwords` or `radix`.
    """

    folder: Path
    kept: int
    prunable: int
    layers: tuple[Layer, ...]
    validation_loss: float | None
    signs: tuple[Sign, ...]
    checkpoint: dict[str, str]
    words: int
    tokens: str

    @property
    def sparsity(self) -> float:
        """Share of removed weights among the prunable ones, 0 to 1."""
        return 1 - self.kept / self.prunable

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune inspect RUN --json` prints."""
        return {
            "run": str(self.folder),
            "kept": self.kept,
            "prunable": self.prunable,
            "layers": [{**asdict(layer), "shape": list(layer.shape)} for layer in self.layers],
            "validation_loss": self.validation_loss,
            "warnings": [sign.as_json() for sign in self.signs],
            "checkpoint": self.checkpoint,
            "words": self.words,
            "tokens": self.tokens,
        }

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns and rows of the table of layers."""
        rows = [
            [
                layer.weights,
                "x".join(map(str, layer.shape)),
                "single" if layer.weights_per_gate == 1 else f"1x{layer.weights_per_gate}",
                f"{layer.kept:,}",
                f"{layer.sparsity:.2%}",
            ]
            for layer in self.layers
        ]
        rows.append(["all", "", "", f"{self.kept:,}", f"{self.sparsity:.2%}"])
        return ["weights", "shape", "gates", "kept", "sparse"], rows

    def _repr_html_(self) -> str:
        return html_table(str(self.folder), *self.cells())


@dataclass(frozen=True)
class BundleInspection:
    """Contents of a bundle.

    Attributes:
        place: The bundle.
        bundle: Its verified content, manifest included.
        ledger: For each model file, how every weight tensor is stored.
    """

    place: Path
    bundle: Bundle
    ledger: tuple[LedgerFile, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all files in bytes."""
        return sum(len(data) for data in self.bundle.files.values())

    @property
    def dense_bytes(self) -> int:
        """Size in bytes of the bundle with every weight stored dense in float32."""
        return self.size_bytes + sum(file.dense_bytes - file.size_bytes for file in self.ledger)

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune inspect BUNDLE --json` prints."""
        return {
            "bundle": str(self.place),
            "manifest": self.bundle.manifest.as_json(),
            "ledger": [_as_json(file) for file in self.ledger],
            "total": {"bytes": self.size_bytes, "dense_bytes": self.dense_bytes},
        }

    def _repr_html_(self) -> str:
        rows = [[name, f"{len(data):,}"] for name, data in self.bundle.files.items()]
        rows.append(["all", f"{self.size_bytes:,}"])
        return html_table(str(self.place), ["file", "bytes"], rows)


@needs("inspect")
def inspect(folder: Place) -> RunInspection | BundleInspection:
    """Describe a run (sparsity, layer by layer) or a bundle (how each weight tensor is stored).

    Args:
        folder: A run, or a bundle as a folder or a `.capz`.

    Raises:
        UsageError: It is neither a run nor a bundle.
        MissingExtra: It is a run, and the extra `train` is not installed.
        BundleError: It does not pass the verifier, or the run is broken.
    """
    place = given_path(folder)
    if place.is_file() or (place / "manifest.json").is_file():
        return inspect_bundle(place)
    if (place / "config.yaml").is_file():
        return inspect_run(place)
    raise UsageError(
        "this is neither a run nor a bundle", where=place, expected="a config.yaml or a manifest.json in it"
    )


def inspect_run(run: Place) -> RunInspection:
    """Describe a run; see `inspect`."""
    require_extras("inspect RUN")
    from capprune.training.health import signs_of, validation_loss
    from capprune.training.run import load_run, read_metrics

    folder = given_path(run)
    loaded, metrics = load_run(folder), read_metrics(folder)
    layers = (
        Layer(name, tuple(mask.shape), loaded.widths[name], int(mask.sum()), mask.numel())
        for name, mask in loaded.masks.items()
    )
    return RunInspection(
        folder,
        kept=loaded.kept,
        prunable=loaded.prunable,
        layers=tuple(layers),
        validation_loss=validation_loss(metrics),
        signs=signs_of(metrics),
        checkpoint=dict(loaded.facts),
        words=len(loaded.vocabulary),
        tokens=loaded.vocabulary.coding.kind,
    )


def inspect_bundle(bundle: Place) -> BundleInspection:
    """Describe a bundle; see `inspect`."""
    from capprune_exporters.ledger import read_ledger
    from capprune_runtime.bundle.verify import verify_bundle

    verified = verify_bundle(given_path(bundle))
    return BundleInspection(given_path(bundle), verified, read_ledger(verified))


def _as_json(file: LedgerFile) -> dict[str, Any]:
    lines = [
        asdict(line) | {"bits_per_kept": line.bits_per_kept, "ratio_to_floor": line.ratio_to_floor}
        for line in file.lines
    ]
    totals = {"bytes": file.size_bytes, "packed_bytes": file.packed_bytes, "dense_bytes": file.dense_bytes}
    return {"file": file.name, "lines": lines, **totals}
