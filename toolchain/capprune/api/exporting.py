"""Export a run as a verified bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, needs, optional_path
from capprune.api.bundle import Bundle
from capprune.api.html import html_table
from capprune.training.progress import SILENT, Progress
from capprune_runtime.errors import BundleError, DataError, UsageError

if TYPE_CHECKING:
    from capprune.exporting import Exported
    from capprune.training.run import LoadedRun

PLANS = ("balanced", "size", "auto")
DEFAULT_BEAM = 3  # a copy, so that --help imports no torch; a test compares the two


@dataclass(frozen=True)
class ExportedBundle(Bundle):
    """A bundle as `export` returns it.

    Attributes:
        made: Storage of each weight tensor, with the reason.
        target: The export target.
        seconds: Duration of the export.
        packed: The packed bundle beside it, if requested.
    """

    made: Exported
    target: str
    seconds: float
    packed: Path | None

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune export --json` prints."""
        document: dict[str, Any] = {
            "bundle": str(self.place),
            "target": self.target,
            "seconds": self.seconds,
            "files": {name: entry.size_bytes for name, entry in self.made.bundle.manifest.files.items()},
            "decoder": [
                {
                    "tensor": t.name,
                    "operator": t.operator,
                    "shape": t.shape,
                    "kept": t.kept,
                    "form": t.form,
                    "bytes": t.size_bytes,
                }
                for t in self.made.tensors
            ],
            "plan": json.loads(self.made.bundle.files["plan.json"]),
        }
        if self.packed is not None:
            document["capz"] = {"file": str(self.packed), "bytes": self.packed.stat().st_size}
        return document

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns and rows of the table of the decoder's weight tensors."""
        reasons = {line.tensor: line.reason for line in self.made.plan.lines}
        rows = [
            [
                t.name,
                "x".join(map(str, t.shape)),
                f"{t.sparsity:.2%}",
                t.form,
                f"{t.size_bytes:,}",
                reasons.get(t.name, ""),
            ]
            for t in self.made.tensors
        ]
        return ["tensor", "weights", "sparse", "stored as", "bytes", "why"], rows

    def _repr_html_(self) -> str:
        return html_table(f"{self.place}: decoder", *self.cells())


@needs("export")
def export(
    run: Place,
    *,
    out: Place,
    target: str = "tflite",
    weights: str | None = None,
    encoder_weights: str | None = None,
    plan: str | Mapping[str, str] | None = None,
    costs: str | None = None,
    data: Place | None = None,
    photos: int = 1000,
    pack: bool = False,
    beam: int = DEFAULT_BEAM,
    no_repeat_ngram: int | None = None,
    progress: Progress = SILENT,
) -> ExportedBundle:
    """Export a run as a bundle that a device can run. The folder gets its name after the bundle has been verified.

    Args:
        run: The run to export.
        out: Folder for the bundle.
        target: `tflite`, `onnx`, or a target of another package.
        weights: How the decoder's weights are quantised: `float32`, `int8` or `codebook4`; by default `int8` if the target
            has it.
        encoder_weights: `float32`, `weight_only_int8` or `static_int8`. By default `float32` beside float32 `weights`,
            otherwise `static_int8` for TFLite if its loss on at least 100 val photos is small, else
            `weight_only_int8`.
        plan: `balanced` (fastest within half of the bytes of dense int8, the default for TFLite), `size` (the default
            for ONNX), `auto` (fastest as measured on this machine), forms by tensor name, or a JSON file of these.
        costs: Cost table of the target processor: a shipped name or a JSON file.
        data: Photos and captions for measuring the loss by quantisation; the run's own by default, if they exist.
        photos: Maximum number of val photos.
        pack: Also write `BUNDLE.capz` beside the bundle.
        beam: Default beam width of the bundle.
        no_repeat_ngram: Length of the sequences of tokens that a caption of the bundle holds at most once, 0 for no such
            limit; the run's `search.no_repeat_ngram` by default.
        progress: Receives progress messages.

    Raises:
        UsageError: The target, a form or a tensor of the plan is unknown, or `out` exists.
        ExportError: The graph cannot be converted, or a golden photo gives other tokens.
        DataError: There are no photos to check on.
    """
    from capprune.exporting import Wanted
    from capprune.exporting import export as export_run
    from capprune.training.run import load_run
    from capprune_exporters.targets.target import find_target
    from capprune_runtime.atomic import check_file_place, check_folder_place
    from capprune_runtime.bundle.capz import MAGIC

    folder = given_path(out)
    check_folder_place(folder, new=True)
    if pack:
        check_file_place(packed_place(folder), ours=(MAGIC,))
    began = time.monotonic()
    loaded = load_run(given_path(run))
    weights = weights or find_target(target).default_weights()
    measures = {weights, encoder_weights or weights} != {"float32"}
    wanted = Wanted(
        target=target,
        weights=weights,
        encoder_weights=encoder_weights,
        plan=_plan(plan),
        costs=costs,
        beam=beam,
        no_repeat_ngram=no_repeat_ngram,
        data=_data(optional_path(data), loaded, progress, measures=measures),
        photos=photos,
    )
    made = export_run(loaded, folder, wanted, progress.say)
    packed = _pack(folder) if pack else None
    return ExportedBundle(folder, made, target, time.monotonic() - began, packed)


def _data(given: Path | None, run: LoadedRun, progress: Progress, *, measures: bool) -> Path | None:
    """Return the data for measuring: the given folder, or the run's training data if it still exists."""
    if given is not None or not measures:
        return given
    from capprune.data.captions import load_caption_set

    own = run.config.data.folder
    try:
        load_caption_set(own).split("val")
    except (DataError, UsageError) as error:
        progress.say(f"note: the loss by quantisation is not measured ({error.what}: {own}); --data FOLDER measures it")
        return None
    return own


def _plan(plan: str | Mapping[str, str] | None) -> str | Mapping[str, str] | None:
    named = plan is None or isinstance(plan, Mapping) or plan in PLANS
    return plan if named else read_plan(Path(str(plan)))


def read_plan(path: Path) -> dict[str, str]:
    """Return forms by tensor name, from a JSON file of these or from the plan.json of a bundle.

    Raises:
        UsageError: The file does not exist or is not a plan.
    """
    from capprune_runtime import strict_json

    expected = 'balanced, size, auto, or a JSON file such as {"output.weight": "dense_int8"} or a bundle\'s plan.json'
    try:
        tree = strict_json.parse(path.read_bytes())
    except OSError as error:
        raise UsageError("there is no such plan", where="--plan", expected=expected, found=path) from error
    except BundleError as error:
        raise UsageError("a plan cannot be read", where=path, expected=expected, found=error.what) from error
    if isinstance(tree, dict) and isinstance(tree.get("lines"), list):
        lines = [line for line in tree["lines"] if isinstance(line, dict)]
        tree = {line.get("tensor"): line.get("form") for line in lines}
    if not isinstance(tree, dict) or not all(isinstance(item, str) for pair in tree.items() for item in pair):
        raise UsageError("a plan cannot be read", where=path, expected=expected)
    return tree


def _pack(bundle: Path) -> Path:
    from capprune_exporters.pack.capz import pack

    place = packed_place(bundle)
    pack(bundle, place)
    return place


def packed_place(bundle: Path) -> Path:
    """Return the path of the packed bundle that `export --pack` writes."""
    from capprune_runtime.bundle.capz import CAPZ_SUFFIX

    return bundle.with_name(bundle.name + CAPZ_SUFFIX)
