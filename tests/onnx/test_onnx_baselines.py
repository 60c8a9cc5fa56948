"""The baselines in ONNX: dense where the name says dense, and the same function in every form."""

from __future__ import annotations

import numpy as np
from onnx_parts import Parts, check_step, largest_error
from test_onnx_convert import FLOAT_ERROR
from test_onnx_weights import INT8_ERROR

from capprune_exporters.baselines import DENSE_FLOAT32, DENSE_INT8, SPARSE_FLOAT32, onnx_baselines
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.onnx.file import read_onnx


def test_baselines_in_onnx_compute_the_same_and_only_the_sparse_one_leaves_zeros_out(parts: Parts) -> None:
    baselines = {one.name: one for one in onnx_baselines(parts.step.converted, parts.weights)}
    assert list(baselines) == [DENSE_FLOAT32, DENSE_INT8, SPARSE_FLOAT32]
    inputs = {name: value.numpy() for name, value in parts.step.inputs.items()}
    for baseline in baselines.values():
        check_step(baseline.decoder, parts.cell)
        model = open_model(baseline.decoder, "step")
        bound = FLOAT_ERROR if baseline.weights == "float32" else INT8_ERROR
        assert largest_error(model.run(inputs), parts.step.expected()) <= bound, baseline.name
        stored = read_onnx(baseline.decoder, baseline.name).initializers
        assert any(name.endswith(".gaps") for name in stored) == (baseline.name == SPARSE_FLOAT32)
    stored = read_onnx(baselines[DENSE_INT8].decoder, DENSE_INT8).initializers
    assert stored["rnn.weight.codes"].values.dtype == np.int8
    assert stored["rnn.weight.codes"].values.size == parts.weights["rnn.weight"].size
