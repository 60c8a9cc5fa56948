"""A small bundle whose decoder is sparse and quantised, packed."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import tflite_edit
import tiny_bundle

from capprune_exporters.pack.capz import PackReport, pack
from capprune_exporters.quantise import requantised
from capprune_exporters.tflite.sparse import add_metadata
from capprune_runtime.bundle.preprocessing import PreprocessingSection
from capprune_runtime.bundle.verify import Bundle, verify_bundle

FULLY_CONNECTED = 9


@dataclass(frozen=True)
class Packed:
    """A bundle as a folder, verified, and packed."""

    folder: Path
    bundle: Bundle
    place: Path
    report: PackReport

    @property
    def data(self) -> bytes:
        return self.place.read_bytes()


def quantise_every_matrix(weights: str) -> tflite_edit.Edit:
    """Every FULLY_CONNECTED of more than one row sparse, with values as `--weights` gives them."""

    def edit(model: Any) -> None:
        for operator in model.subgraphs[0].operators:
            weight = model.subgraphs[0].tensors[operator.inputs[1]] if is_product(model, operator) else None
            if weight is not None and weight.shape[0] > 1:
                dense = requantised(tflite_edit.thinned(tflite_edit.dense_values(model, weight)), weights)
                tflite_edit.store_sparse(model, weight, dense)
                tflite_edit.set_version(model, operator, 8)

    return edit


def is_product(model: Any, operator: Any) -> bool:
    return tflite_edit.code_of(model, operator) == FULLY_CONNECTED


def words_of(folder: Path) -> bytes:
    return (folder / "vocabulary.txt").read_bytes()


def make_packed_bundle(folder: Path, models: tiny_bundle.TinyModels, edit: tflite_edit.Edit) -> Packed:
    tiny_bundle.write_bundle(folder, models)
    manifest = tiny_bundle.manifest_json(models.cell)
    described = {
        "preprocessing": PreprocessingSection(size=tiny_bundle.SIZE).described(),
        "decoding": manifest["decoding"],
    }
    step = tflite_edit.edited(models.step_tflite, edit)
    decoder = add_metadata(step, words_of(folder), json.dumps(described).encode())
    (folder / "decoder.tflite").write_bytes(decoder)
    tiny_bundle.seal(folder, manifest)
    place = folder.with_name("bundle.capz")
    return Packed(folder, verify_bundle(folder), place, pack(folder, place))
