"""Weights as gaps: smaller in the file, the same numbers once a standard runtime has rebuilt them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_parts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_parts import Parts, largest_error
from test_onnx_convert import FLOAT_ERROR

import onnx
from capprune_exporters.onnx import graph
from capprune_exporters.onnx.weights import SMALLEST, gaps_of, make_gapped
from capprune_exporters.quantise import requantised
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import ExportError

INT8_ERROR, CODEBOOK_ERROR = 0.03, 0.3  # of random weights; trained ones are judged by captions
ROWS, COLUMNS = 24, 400
WEIGHTS = ("float32", "int8", "codebook4")


def matrices() -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(1)
    dense = generator.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    empty_rows, long_gaps, last = (
        dense * (generator.random(dense.shape) < 0.05),
        np.zeros_like(dense),
        np.zeros_like(dense),
    )
    empty_rows[[0, 3, 4, -1]] = 0
    long_gaps.ravel()[[255, 510, 766, 1278, 5000]] = 1, -2, 3, -4, 5
    last[-1, -1] = 1.5
    return {
        "dense": dense,
        "sparse": dense * (generator.random(dense.shape) < 0.05),
        "half": dense * (generator.random(dense.shape) < 0.5),
        "empty rows": empty_rows,
        "long gaps": long_gaps,
        "only the last": last,
        "all zero": np.zeros_like(dense),
        "few values": np.where(dense > 1.5, np.float32(0.5), np.float32(0)),
    }


def identity_model(weight: NDArray[np.float32]) -> bytes:
    """A product with a weight; its input for an identity matrix gives the weight back."""
    value = onnx.helper.make_tensor_value_info
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1)],
            "main",
            [value("x", onnx.TensorProto.FLOAT, ["rows", weight.shape[1]])],
            [value("y", onnx.TensorProto.FLOAT, ["rows", weight.shape[0]])],
            [graph.stored("weight", weight)],
        )
    )
    return graph.save(model)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", matrices())
def test_rebuilt_weights_are_the_quantised_ones_to_the_bit(name: str, weights: str) -> None:
    weight = matrices()[name]
    made = make_gapped(identity_model(weight), weights=weights)
    x = {"x": np.eye(COLUMNS, dtype=np.float32)}
    expected = requantised(weight, weights).T
    assert np.array_equal(open_model(made.data, "").run(x)["y"], expected)
    assert np.array_equal(np.asarray(ReferenceEvaluator(onnx.load_from_string(made.data)).run(None, x)[0]), expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 900), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_gaps_lead_to_every_kept_weight_and_else_to_zeros(rows: int, columns: int, density: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    matrix = np.where(generator.random((rows, columns)) < density, generator.normal(size=(rows, columns)), 0)
    gaps, places = gaps_of(matrix)
    assert gaps.dtype == np.uint8 and len(gaps) == len(places) >= 1
    assert np.array_equal(np.cumsum(gaps, dtype=np.int64), places)
    assert (gaps[1:] > 0).all() and places[-1] < matrix.size
    rebuilt = np.zeros(matrix.size)
    rebuilt[places] = matrix.ravel()[places]
    assert np.array_equal(rebuilt.reshape(matrix.shape), matrix)
    assert len(gaps) <= np.count_nonzero(matrix) + matrix.size // 255 + 1


@pytest.mark.parametrize(
    ("weights", "error"), [("float32", FLOAT_ERROR), ("int8", INT8_ERROR), ("codebook4", CODEBOOK_ERROR)]
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_step_gives_what_torch_gives(weights: str, error: float, dynamic: bool, parts: Parts) -> None:
    made = make_gapped(parts.step.converted, weights=weights, names=parts.weights, dynamic=dynamic)
    onnx_parts.check_step(made.data, parts.cell)
    onnx.checker.check_model(onnx.load_from_string(made.data), full_check=True)
    found = open_model(made.data, "step").run(parts.step.arrays)
    assert largest_error(found, parts.step.expected()) <= error
    assert len(made.data) < len(parts.step.converted) / (3 if weights == "float32" else 8)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_rows_may_be_many_in_every_form(weights: str, lstm: Parts) -> None:
    data = make_gapped(lstm.step.converted, weights=weights).data
    inputs = {name: np.repeat(array, 3, axis=0) for name, array in lstm.step.arrays.items()}
    model = open_model(data, "step")
    alone = {name: np.repeat(array, 3, axis=0) for name, array in model.run(lstm.step.arrays).items()}
    assert largest_error(model.run(inputs), alone) <= FLOAT_ERROR


def test_tensors_carry_the_names_of_parameters_and_tell_what_they_take(lstm: Parts) -> None:
    made = make_gapped(lstm.step.converted, weights="int8", names=lstm.weights, dynamic=True)
    forms = {tensor.name: tensor.form for tensor in made.tensors}
    assert forms == {
        "embedding.weight": "gap_int8",
        "query.weight": "gap_int8",
        "score.weight": "dense_float32",
        "rnn.weight": "gap_int8",
        "output.weight": "dynamic_int8",
    }
    for tensor in made.tensors:
        assert tensor.shape == lstm.weights[tensor.name].shape
        assert tensor.kept <= np.count_nonzero(lstm.weights[tensor.name])
    assert made.weight_bytes < len(made.data) < made.weight_bytes + 8000
    graph_of_it = onnx.load_from_string(made.data).graph
    assert {"rnn.weight.gaps", "output.weight.codes"} <= {tensor.name for tensor in graph_of_it.initializer}


def test_weights_can_be_chosen_by_name(lstm: Parts) -> None:
    made = make_gapped(lstm.step.converted, weights={"rnn.weight": "int8"}, names=lstm.weights)
    forms = {tensor.name: tensor.form for tensor in made.tensors}
    assert forms["rnn.weight"] == "gap_int8" and forms["embedding.weight"] == "gap_float32"
    assert forms["output.weight"] == "dense_float32"


def test_small_matrices_stay_as_they_are() -> None:
    weight = np.zeros((2, SMALLEST // 2 - 1), np.float32)
    assert make_gapped(identity_model(weight)).tensors[0].form == "dense_float32"


def test_unknown_quantisation_is_an_export_error(lstm: Parts) -> None:
    with pytest.raises(ExportError, match="no such form"):
        make_gapped(lstm.step.converted, weights="int4")


def test_onnxruntime_rebuilds_the_weights_once_when_it_loads_them(lstm: Parts, tmp_path: Path) -> None:
    import onnxruntime

    for weights in WEIGHTS:
        options: Any = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{weights}.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 4
        data = make_gapped(lstm.step.converted, weights=weights).data
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        left = {node.op_type for node in onnx.load(tmp_path / f"{weights}.onnx").graph.node}
        assert left & {"ScatterElements", "CumSum", "ConstantOfShape", "Cast"} == set()
