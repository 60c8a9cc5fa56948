"""The sound files that attacks and mutations start from: every stored form, and every operator."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import one_operator
import tflite_edit as edit

from capprune_runtime.tflite.operators import OPERATORS

if TYPE_CHECKING:
    import tiny_bundle

STEP_FORMS = {
    "dense": [],
    "csr": [edit.make_every_csr],
    "float blocks": [edit.make_float_blocks],
    "int8": [edit.make_int8],
    "int8 blocks": [edit.make_int8_blocks],
    "densify": [edit.make_densified_embedding],
    "int8 densify": [edit.make_densified_int8_embedding, edit.make_densified_int8_weight],
    "csr and densify": [edit.make_every_csr, edit.make_densified_embedding],
}


@dataclass(frozen=True)
class Subject:
    """A sound model file; `member` is its name in a bundle, empty for a file of one operator."""

    name: str
    data: bytes
    signature: str
    cell: str = ""
    member: str = ""


def model_subjects(models: Mapping[str, tiny_bundle.TinyModels]) -> tuple[Subject, ...]:
    """Encoders and decoders of both cells, in every form that a bundle may hold."""
    found = []
    for cell, model in models.items():
        for form, edits in STEP_FORMS.items():
            data = edit.edited(model.step_tflite, *edits)
            found.append(Subject(f"{cell} step, {form}", data, "step", cell, "decoder.tflite"))
        for form, data in encoder_forms(model.encoder_tflite).items():
            found.append(Subject(f"{cell} encode, {form}", data, "encode", cell, "encoder.tflite"))
    return tuple(found)


INT8_SCALE = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
INT8_OPERATORS = (
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL", "PAD", "RELU", "RELU6",
    "RESHAPE", "SLICE", "SOFTMAX", "SUB", "TANH", "TRANSPOSE",
)  # fmt: skip


def operator_subjects() -> tuple[Subject, ...]:
    """Every operator on float32, and those that an int8 graph may need between QUANTIZE and DEQUANTIZE."""
    found = []
    for case in one_operator.CASES:
        name, data = f"{case.operator} {case.outputs}", one_operator.one_operator_file(case)
        found.append(Subject(name, data, "run"))
        if case.operator in INT8_OPERATORS:
            found.append(Subject(f"int8 {name}", edit.edited(data, between_int8), "run"))
    return tuple(found)


def between_int8(model: Any) -> None:
    graph, operator = model.subgraphs[0], model.subgraphs[0].operators[0]
    name = next(rule.name for rule in OPERATORS.values() if rule.code == edit.code_of(model, operator))
    before = []
    for index in graph.inputs:
        quantised = edit.computed_like(model, graph.tensors[index], b"int8")
        make_int8_tensor(graph.tensors[quantised], 1 / 100, 3)
        before.append(edit.new_operator(model, 114, [index], [quantised], 89, edit.schema.QuantizeOptionsT()))
        operator.inputs = [quantised if other == index else other for other in operator.inputs]
    inner = edit.computed_like(model, graph.tensors[operator.outputs[0]], b"result")
    same = name in ("ADD", "BATCH_MATMUL", "MUL", "SUB", "MEAN", "SUM")
    make_int8_tensor(graph.tensors[inner], *INT8_SCALE.get(name, (1 / 50, -4) if same else (1 / 100, 3)))
    after = edit.new_operator(model, 6, [inner], operator.outputs, 38, edit.schema.DequantizeOptionsT())
    operator.outputs = [inner]
    graph.operators = [*before, operator, after]


def make_int8_tensor(tensor: Any, scale: float, zero_point: int) -> None:
    tensor.type = 9
    edit.set_scales(tensor, [scale], [zero_point])


def encoder_forms(data: bytes) -> dict[str, bytes]:
    """float32 and int8 weights with a scale a channel, as exports write them, and int8 to the very end.

    Exports compute in float32 behind the last convolution. A file may do otherwise, so the attacks have int8 there too.
    """
    from capprune_exporters.tflite import quantise
    from capprune_exporters.tflite.quantise import static_int8, weight_only_int8

    generator = np.random.default_rng(0)
    shape = edit.shape_of(data, "photo")
    photos = [{"photo": generator.uniform(-1, 1, shape).astype(np.float32)} for _ in range(4)]
    with patch.object(quantise, "_behind_convolutions", lambda model: ()):
        int8 = static_int8(data, photos)
    return {"float32": data, "int8 weights": weight_only_int8(data), "int8": edit.edited(int8, _read_int8)}


def _read_int8(model: Any) -> None:
    """The quantiser lets an int8 operator read an output that it turned into float32: let it read what was before."""
    graph = model.subgraphs[0]
    before = {operator.outputs[0]: operator.inputs[0] for operator in edit.operators_of(model, 6)}
    for operator in edit.operators_of(model, 9):
        if graph.tensors[operator.outputs[0]].type == 9:
            operator.inputs = [before.get(operator.inputs[0], operator.inputs[0]), *operator.inputs[1:]]


def inputs_for(shapes: Mapping[str, tuple[tuple[int, ...], str]], seed: int = 0) -> dict[str, Any]:
    """Random inputs of the sizes that photos and states have; the token is that of a word."""
    generator = np.random.default_rng(seed)
    return {
        name: np.full(shape, 7, dtype) if dtype != "float32" else generator.uniform(-1, 1, shape).astype(np.float32)
        for name, (shape, dtype) in sorted(shapes.items())
    }
