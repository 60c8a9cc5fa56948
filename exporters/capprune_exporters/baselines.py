"""Baselines of a bundle: the same model with its weights in every other form that its runtime supports.

    dense float32      computes with every zero, as a converter writes it
    dense int8         the same in int8: the result without pruning
    sparse float32     kept weights in rows (.tflite), as gaps that are expanded at load (.onnx)
    1x16 int8 blocks   for matrices that keep their weights in whole blocks; .tflite only

All of them use the bundle's own encoder, so that only the effect of pruning differs.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from capprune_exporters.plan import in_blocks, plan_by_size
from capprune_exporters.tflite.dense import make_dense
from capprune_exporters.tflite.forms import FITS
from capprune_exporters.tflite.sparse import SMALLEST, make_sparse
from capprune_runtime.bundle.manifest import (
    GOLDEN_FOLDER,
    MANIFEST,
    VOCABULARY,
    DecoderSection,
    EncoderSection,
    FileEntry,
    QuantisationSection,
)
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.errors import ExportError
from capprune_runtime.formats import FORMATS, model_kind
from capprune_runtime.tflite.file import read_tflite

DENSE_FLOAT32, DENSE_INT8, SPARSE_FLOAT32, BLOCKS_INT8 = (
    "dense float32",
    "dense int8",
    "sparse float32",
    "1x16 int8 blocks",
)
LOOKUPS = ("EMBEDDING_LOOKUP", "GATHER")

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Baseline:
    """One storage of the model.

    Attributes:
        name: Name in a table.
        decoder: The model file of `step`.
        weights: Quantisation of its values, as a manifest names it.
    """

    name: str
    decoder: bytes
    weights: str

    @property
    def kind(self) -> str:
        """The format, `tflite` or `onnx`."""
        return model_kind(self.decoder)


def tflite_baselines(step: bytes) -> tuple[Baseline, ...]:
    """Return every TFLite form of a `step`.

    Args:
        step: A verified .tflite in any form; its stored values are used.

    Raises:
        ExportError: The model has more than one subgraph.
    """
    dense = make_dense(step)
    matrices, looked_up = _matrices(dense)
    forms: dict[str, Mapping[str, str]] = {
        DENSE_FLOAT32: dict.fromkeys(matrices, "dense_float32"),
        DENSE_INT8: _in_int8(dense, matrices),
        SPARSE_FLOAT32: plan_by_size(matrices, looked_up, "float32").forms,
    }
    if any(in_blocks(matrix) for name, matrix in matrices.items() if name not in looked_up):
        forms[BLOCKS_INT8] = plan_by_size(matrices, looked_up, "int8").forms
    found: dict[object, Baseline] = {}  # keyed by forms, because a model without zeros has no sparse ones
    for name, plan in forms.items():
        decoder = make_sparse(dense, one_row=True, plan=plan).data
        weights = "int8" if name in (DENSE_INT8, BLOCKS_INT8) else "float32"
        found.setdefault(stored_forms(decoder), Baseline(name, decoder, weights))
    return tuple(found.values())


def onnx_baselines(step: bytes, names: Mapping[str, Matrix]) -> tuple[Baseline, ...]:
    """Return every ONNX form of a `step`; all are computed dense.

    Args:
        step: The result of `convert_onnx`.
        names: Parameters by name.
    """
    from capprune_exporters.onnx.weights import make_gapped

    return (
        Baseline(DENSE_FLOAT32, make_gapped(step, names=names, sparse=False).data, "float32"),
        Baseline(DENSE_INT8, make_gapped(step, weights="int8", names=names, dynamic=True, sparse=False).data, "int8"),
        Baseline(SPARSE_FLOAT32, make_gapped(step, names=names).data, "float32"),
    )


def own_form(bundle: Bundle, baselines: tuple[Baseline, ...]) -> str | None:
    """Return the name of the baseline whose tensors are stored like those of the bundle."""
    own = stored_forms(bundle.decoder)
    return next((one.name for one in baselines if one.kind == "tflite" and stored_forms(one.decoder) == own), None)


def stored_forms(step: bytes) -> tuple[tuple[tuple[int, ...], str, str], ...]:
    """Return shape, type and layout of every stored matrix of a .tflite, in file order; nothing for an .onnx."""
    if model_kind(step) != "tflite":
        return ()
    model = read_tflite(step, "step")
    return tuple(
        (tensor.shape, tensor.dtype, "dense" if tensor.sparsity is None else f"sparse {tensor.sparsity.block_map}")
        for tensor in model.tensors
        if len(tensor.shape) == 2 and model.is_constant(tensor)
    )


def baseline_bundle(bundle: Bundle, baseline: Baseline, encoder: bytes) -> Bundle:
    """Return a bundle with a baseline: models, vocabulary, manifest, and the bundle's own golden photos for timing.

    An int8 baseline may generate other captions for them than the expected ones. It is only for measurements.

    Args:
        bundle: The bundle to compare with.
        baseline: The baseline, which holds the decoder.
        encoder: An encoder of the same kind.

    Raises:
        ExportError: The two models have different formats.
    """
    if model_kind(encoder) != baseline.kind:
        raise ExportError(
            "encoder and decoder of a baseline are not of one kind", where=baseline.name, expected=baseline.kind
        )
    names = FORMATS[baseline.kind].files
    kept = {name: data for name, data in bundle.files.items() if name.startswith(f"{GOLDEN_FOLDER}/")}
    files = {names[0]: encoder, names[1]: baseline.decoder, VOCABULARY: bundle.files[VOCABULARY], **kept}
    manifest = replace(
        bundle.manifest,
        encoder=EncoderSection(file=names[0]),
        decoder=DecoderSection(interface=bundle.manifest.interface, file=names[1]),
        quantisation=QuantisationSection(encoder=bundle.manifest.quantisation.encoder, decoder=baseline.weights),
        files={name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()},
    )
    text = json.dumps(manifest.as_json(), indent=2) + "\n"
    place = Path(f"{baseline.kind}-{baseline.name}".replace(" ", "-"))
    return Bundle(place, manifest, bundle.vocabulary, {MANIFEST: text.encode(), **files})


def verified(baseline: Bundle) -> Bundle:
    """Return the baseline after verification, which every bundle needs before it runs. Its place is a descriptive name.

    Raises:
        BundleError: A rule is broken: a defect of the exporter.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / baseline.place.name
        baseline.write_files(place)
        return verify_bundle(place)


def _matrices(dense: bytes) -> tuple[dict[str, Matrix], tuple[str, ...]]:
    """Return the stored matrices by name, and the names of those that are looked up by row."""
    model = read_tflite(dense, "step")
    users = {index: operator.name for operator in model.operators for index in operator.inputs}
    found = {
        tensor.name: (model.stored_values(tensor).reshape(tensor.shape), users[tensor.index])
        for tensor in model.tensors
        if len(tensor.shape) == 2 and tensor.dtype == "float32" and model.is_constant(tensor) and tensor.index in users
    }
    matrices = {name: matrix for name, (matrix, _) in found.items()}
    return matrices, tuple(name for name, (_, user) in found.items() if user in LOOKUPS)


def _in_int8(dense: bytes, matrices: Mapping[str, Matrix]) -> dict[str, str]:
    """Use dense int8 wherever an operator supports it and it is worth it."""
    stored = make_sparse(dense, one_row=True, plan=dict.fromkeys(matrices, "dense_float32")).tensors
    able = {operator for operator, _ in FITS["dense_int8"]}
    return {
        one.name: "dense_int8" if one.operator in able and int(np.prod(one.shape)) >= SMALLEST else "dense_float32"
        for one in stored
        if one.name in matrices
    }
