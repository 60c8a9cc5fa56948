"""The way back: from every sparse or int8 form to the dense float32 that the converter wrote."""

from __future__ import annotations

import numpy as np
import pytest
from matrix_model import SIGNATURE, checked, lookup_model, packed, random_matrix
from real_parts import Part, largest_error

from capprune_exporters.quantise import requantised
from capprune_exporters.tflite.dense import make_dense
from capprune_exporters.tflite.sparse import make_sparse, pack
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.tflite.file import read_tflite

FORMS = ("dense_float32", "csr_float32", "densify_float32", "dense_int8", "block_1x16_int8", "densify_int8")
LOOKED_UP = {"block_1x16_int8": "densify_int8", "csr_float32": "densify_float32"}  # of the embedding beside it


def operators(data: bytes) -> list[tuple[str, int]]:
    return [(one.name, one.version) for one in read_tflite(data, "step").operators]


@pytest.mark.parametrize("form", FORMS)
def test_a_matrix_in_any_form_becomes_dense_float32_again(form: str) -> None:
    matrix = random_matrix((64, 96), 0.9)
    stored = make_sparse(packed(matrix), one_row=True, plan={"weight": form}).data
    back = make_dense(stored)
    checked(back, SIGNATURE)
    kept = requantised(matrix, "int8") if form.endswith("int8") else matrix
    (tensor,) = [one for one in read_tflite(back, "matrix").tensors if one.name == "weight"]
    assert tensor.dtype == "float32" and tensor.sparsity is None
    found = read_tflite(back, "matrix").stored_values(tensor).reshape(matrix.shape)
    np.testing.assert_array_equal(found, kept)
    assert operators(back) == operators(packed(matrix))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_in_any_form_has_the_operators_of_the_converter_again(
    form: str, cell: str, lstm_step: Part, gru_step: Part
) -> None:
    part = lstm_step if cell == "lstm" else gru_step
    forms = {tensor.name: tensor for tensor in make_sparse(part.converted, one_row=True).tensors}
    plan = {
        name: LOOKED_UP.get(form, form) if tensor.operator == "EMBEDDING_LOOKUP" else form
        for name, tensor in forms.items()
        if tensor.operator in ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")
    }
    stored = make_sparse(part.converted, one_row=True, plan=plan).data
    back = make_dense(stored)
    checked(back, "step")
    assert operators(back) == operators(part.converted)
    case = part.case(back, "step")
    error = largest_error(open_model(back, "step").run(case.inputs), case.expected)
    assert error <= (0.1 if form.endswith("int8") else 1e-5)  # int8 rounded the weights before


def test_a_dense_model_can_be_made_sparse_again_to_the_same_size(lstm_step: Part) -> None:
    back = make_dense(lstm_step.sparse.data)
    again = make_sparse(back, one_row=True)
    assert [(one.shape, one.form, one.size_bytes) for one in again.tensors] == [
        (one.shape, one.form, one.size_bytes) for one in lstm_step.sparse.tensors
    ]


@pytest.mark.parametrize("form", ["dense_float32", "densify_float32", "densify_int8"])
@pytest.mark.parametrize("operator", ["EMBEDDING_LOOKUP", "GATHER"])
def test_rows_that_were_looked_up_in_a_sparse_table_are_looked_up_in_a_dense_one(operator: str, form: str) -> None:
    table = random_matrix((40, 128), 0.9)
    converted = pack(lookup_model(table, operator))
    back = make_dense(make_sparse(converted, one_row=True, plan={"weight": form}).data)
    checked(back, SIGNATURE)
    assert operators(back) == operators(converted)
    expected = requantised(table, "int8") if form.endswith("int8") else table
    found = open_model(back, SIGNATURE).run({"x": np.array([7], np.int32)})["y"]
    np.testing.assert_array_equal(found[0], expected[7])
