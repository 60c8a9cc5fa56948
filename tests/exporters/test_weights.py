"""Stored matrices come back as they were, and multiply as the dense ones do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_model import random_matrix
from numpy.typing import NDArray

from capprune_exporters.quantise import int8_per_row, requantised
from capprune_exporters.weights import (
    BlockWeights,
    CodebookValues,
    CsrWeights,
    DenseWeights,
    Float32Values,
    Int8Values,
    SparseWeights,
    quantised,
)

SUM_ERROR = 1e-6  # relative to the sum of the terms' sizes: one rounding to float32, the sums are in float64
BLOCK = 16

Matrix = NDArray[np.float32]
# Every way to store a matrix whose rows divide into blocks, with the quantisation of its values.
STORE: dict[str, tuple[Callable[[Matrix, str], SparseWeights], tuple[str, ...]]] = {
    "dense": (DenseWeights.from_dense, ("float32", "int8", "int8_per_row")),
    "csr": (CsrWeights.from_dense, ("float32", "int8", "int8_per_row", "codebook4")),
    "blocks": (
        lambda matrix, weights: BlockWeights.from_dense(matrix, BLOCK, weights),
        ("float32", "int8", "int8_per_row"),
    ),
}
WAYS = [(form, weights) for form, (_, possible) in STORE.items() for weights in possible]


@pytest.mark.parametrize(("form", "weights"), WAYS)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 20),
    blocks=st.integers(1, 6),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
    empty=st.sampled_from(["nothing", "first rows", "last rows", "first columns"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_matrix_comes_back_and_multiplies_alike(
    form: str, weights: str, rows: int, blocks: int, sparsity: float, empty: str, seed: int
) -> None:
    matrix = emptied(random_matrix((rows, blocks * BLOCK), sparsity, seed), empty)
    stored = STORE[form][0](matrix, weights)
    expected = expected_values(matrix, weights)
    assert stored.shape == matrix.shape
    assert stored.dense().dtype == np.float32
    assert np.array_equal(stored.dense(), expected)
    assert stored.kept == np.count_nonzero(expected)
    x = np.random.default_rng(seed).standard_normal(matrix.shape[1]).astype(np.float32)
    found = stored.matvec(x)
    assert found.dtype == np.float32 and found.shape == (rows,)
    terms = np.abs(expected.astype(np.float64)) @ np.abs(x)
    assert (np.abs(found - expected.astype(np.float64) @ x) <= SUM_ERROR * terms + 1e-30).all()


def test_csr_holds_values_columns_and_row_pointers() -> None:
    stored = CsrWeights.from_dense(np.array([[0, 3, 0, 4], [0, 0, 0, 0], [5, 0, 0, 0]], np.float32))
    assert stored.row_pointers.tolist() == [0, 2, 2, 3]
    assert stored.columns.tolist() == [1, 3, 0]
    assert isinstance(stored.values, Float32Values) and stored.values.data.tolist() == [3, 4, 5]


def test_blocks_hold_whole_blocks_with_the_zeros_in_them() -> None:
    matrix = np.array([[0, 0, 1, 0], [0, 0, 0, 0], [2, 3, 0, 4]], np.float32)
    stored = BlockWeights.from_dense(matrix, 2)
    assert stored.row_pointers.tolist() == [0, 1, 1, 3]
    assert stored.block_columns.tolist() == [1, 0, 1]
    assert isinstance(stored.values, Float32Values) and stored.values.data.tolist() == [1, 0, 2, 3, 0, 4]
    assert stored.kept == 4


@pytest.mark.parametrize(("form", "weights"), [way for way in WAYS if way[0] != "dense"])
def test_matrix_of_zeros_stores_one_zero(form: str, weights: str) -> None:
    stored = STORE[form][0](np.zeros((5, 32), np.float32), weights)
    assert isinstance(stored, CsrWeights | BlockWeights)
    assert stored.row_pointers.tolist() == [0, 1, 1, 1, 1, 1]
    assert stored.kept == 0 and not stored.dense().any()


def test_weight_that_rounds_to_no_code_is_not_stored() -> None:
    matrix = np.array([[127, 0.4, 0, 1]], np.float32)
    stored = CsrWeights.from_dense(matrix, "int8")
    assert stored.columns.tolist() == [0, 3]
    assert isinstance(stored.values, Int8Values) and stored.values.codes.tolist() == [127, 1]


def test_block_that_rounds_to_zeros_is_not_stored() -> None:
    matrix = np.zeros((1, 32), np.float32)
    matrix[0, 3], matrix[0, 20] = 0.1, 127
    assert BlockWeights.from_dense(matrix, 16, "int8").block_columns.tolist() == [1]


def test_int8_values_are_the_scale_times_the_code_rounded_once() -> None:
    scale = np.float32(0.1)
    values = Int8Values(np.arange(-127, 128).astype(np.int8), np.array([scale]))
    expected = [np.float32(np.float64(scale) * code) for code in range(-127, 128)]
    assert values.decoded(np.zeros(255, np.int64)).tolist() == expected


def test_scale_of_a_row_belongs_to_its_row() -> None:
    values = Int8Values(np.array([1, 1, 2], np.int8), np.array([0.5, 4], np.float32))
    assert values.decoded(np.array([0, 1, 1])).tolist() == [0.5, 4, 8]


def test_codebook_values_are_those_of_the_table() -> None:
    values = CodebookValues(np.array([2, 0], np.uint8), np.array([-1, 1, 3], np.float32))
    assert values.decoded(np.array([0, 0])).tolist() == [3, -1]


def test_negative_zero_is_a_zero() -> None:
    assert CsrWeights.from_dense(np.array([[-0.0, 1.0]], np.float32)).columns.tolist() == [1]


def test_rows_that_do_not_divide_into_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of 20 do not divide into blocks of 16"):
        BlockWeights.from_dense(np.ones((2, 20), np.float32), 16)


@pytest.mark.parametrize("store", [DenseWeights.from_dense, lambda m, w: BlockWeights.from_dense(m, BLOCK, w)])
def test_codebook_cannot_store_zeros(store: Callable[[Matrix, str], SparseWeights]) -> None:
    with pytest.raises(ValueError, match="no code for zero"):
        store(np.ones((2, 16), np.float32), "codebook4")


def test_unknown_quantisation_is_refused() -> None:
    with pytest.raises(ValueError, match="not int3"):
        quantised(np.ones((1, 1), np.float32), "int3")


def emptied(matrix: Matrix, part: str) -> Matrix:
    rows, columns = (size // 2 for size in matrix.shape)
    places = {"first rows": np.s_[:rows], "last rows": np.s_[rows:], "first columns": np.s_[:, :columns]}
    if part in places:
        matrix[places[part]] = 0
    return matrix


def expected_values(matrix: Matrix, weights: str) -> Matrix:
    if weights == "int8_per_row":
        codes, scales = int8_per_row(matrix)
        return scales[:, np.newaxis] * codes.astype(np.float32)
    return requantised(matrix, weights)
