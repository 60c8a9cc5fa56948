"""Products of several rows that read their sparse weights as they are stored, where the kernel is as fast."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from matrix_model import SIGNATURE, checked, lookup_model, packed, random_matrix
from real_parts import Case, Part, largest_error, run

from capprune_exporters.targets.tflite import TfliteTarget
from capprune_exporters.tflite.graph import pack, unpack
from capprune_exporters.tflite.quantise import weight_only_int8
from capprune_exporters.tflite.sparse import SPARSE_KERNEL_PAYS, SPARSE_ROWS_PAY, make_sparse, read_sparse

FLOAT_ERROR = 1e-5
DENSE_BYTES = 64 * 128 * 4


def operators(data: bytes, signature: str = SIGNATURE) -> list[str]:
    return [operator.name for operator in checked(data, signature).operators]


@pytest.mark.parametrize(
    ("rows", "sparsity", "sparse"),
    [
        (1, SPARSE_KERNEL_PAYS + 0.01, True),
        (1, SPARSE_KERNEL_PAYS - 0.01, False),
        (16, SPARSE_ROWS_PAY + 0.01, True),
        (16, SPARSE_ROWS_PAY - 0.01, False),
    ],
)
def test_weights_are_read_as_stored_from_the_sparsity_on_that_pays(rows: int, sparsity: float, sparse: bool) -> None:
    weight = random_matrix((64, 128), sparsity)
    expanded = make_sparse(packed(weight, rows=rows), one_row=False).data
    assert operators(expanded) == ["DENSIFY", "FULLY_CONNECTED"]
    data = read_sparse(expanded)
    assert operators(data) == (["FULLY_CONNECTED"] if sparse else ["DENSIFY", "FULLY_CONNECTED"])
    assert len(data) <= len(expanded) < DENSE_BYTES
    x = np.random.default_rng(1).standard_normal((rows, 128)).astype(np.float32)
    found = run(Case(data, SIGNATURE, {"x": x}, {}), "ai-edge-litert")
    assert largest_error(found, {"y": x @ weight.T}) <= FLOAT_ERROR


def test_other_uses_of_a_sparse_weight_stay_expanded() -> None:
    weight = random_matrix((64, 128), 0.975)
    for model in (packed(weight, rows=3, weight_is_the_input=True), pack(lookup_model(weight, "EMBEDDING_LOOKUP"))):
        expanded = make_sparse(model, one_row=False).data
        assert "DENSIFY" in operators(expanded)
        assert operators(read_sparse(expanded)) == operators(expanded)


def test_an_int8_encoder_keeps_sparse_projections(encode: Part) -> None:
    quantised = weight_only_int8(make_sparse(encode.converted, one_row=False, filters=False).data)
    assert operators(quantised, "encode").count("DENSIFY") == 3
    assert "DENSIFY" not in operators(read_sparse(quantised), "encode")
    assert read_sparse(read_sparse(quantised)) == read_sparse(quantised)


@pytest.mark.parametrize(("weights", "rounded"), [("float32", False), ("weight_only_int8", True)])
def test_sparse_projections_of_an_int8_encoder_have_int8_values(encode: Part, weights: str, rounded: bool) -> None:
    calls = SimpleNamespace(projections={}, filters=dict)
    model = unpack(TfliteTarget(calls).write_encoder(encode.converted, weights, ()))  # type: ignore[arg-type]
    found = [
        np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
        for tensor in model.subgraphs[0].tensors
        if tensor.sparsity is not None and len(tensor.shape) == 2
    ]
    assert len(found) == 3
    for values in found:
        codes = values / np.abs(values).max() * 127
        assert (np.abs(codes - np.rint(codes)).max() < 1e-3) == rounded
