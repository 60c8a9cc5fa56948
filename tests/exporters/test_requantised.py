"""Fewer values: int8 and codebooks keep zeros, stay near, and are what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matrix_model import random_matrix
from numpy.typing import NDArray

from capprune_exporters.quantise import CODEBOOK_SIZE, codebook, int8_per_row, int8_per_tensor, requantised
from capprune_exporters.weight_forms import Weights

HALF_A_STEP = 0.5 + 1e-4  # of a scale; the quotient is rounded to float32 before it is rounded to a code
# Share of the energy of normally distributed values that is lost with 16 of them; the best quantiser there is loses 0.95 %,
# and a border at zero costs a little.
MOST_ENERGY_LOST = 0.011

Matrix = NDArray[np.float32]

finite = st.floats(-(2.0**100), 2.0**100, width=32)
matrices = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=finite)


@settings(max_examples=60, deadline=None)
@given(matrix=matrices)
def test_int8_is_within_half_a_step_and_never_128(matrix: Matrix) -> None:
    codes, scale = int8_per_tensor(matrix)
    assert codes.dtype == np.int8 and codes.shape == matrix.shape and isinstance(scale, np.float32)
    assert np.abs(codes.astype(int)).max() <= 127
    assert np.isfinite(scale) and scale >= np.finfo(np.float32).tiny
    error = np.abs(matrix.astype(np.float64) - np.float64(scale) * codes)
    assert (error <= HALF_A_STEP * np.float64(scale)).all()
    assert not codes[matrix == 0].any()


@settings(max_examples=60, deadline=None)
@given(matrix=matrices)
def test_int8_per_row_is_int8_of_each_row(matrix: Matrix) -> None:
    codes, scales = int8_per_row(matrix)
    assert scales.dtype == np.float32 and scales.shape == (len(matrix),)
    for row, (found, scale) in zip(matrix, zip(codes, scales, strict=True), strict=True):
        expected, own = int8_per_tensor(row)
        assert np.array_equal(found, expected) and scale == own


@settings(max_examples=60, deadline=None)
@given(matrix=matrices, weights=st.sampled_from(list(Weights)))
def test_zeros_stay_zeros_and_int8_keeps_signs(matrix: Matrix, weights: str) -> None:
    found = requantised(matrix, weights)
    assert found.dtype == np.float32 and found.shape == matrix.shape
    assert not found[matrix == 0].any()
    if weights == "codebook4":
        assert found[matrix != 0].all()  # a weight between a negative and a positive value goes to the nearer
    else:
        assert (found * np.sign(matrix) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(matrix=matrices)
def test_codebook_is_short_rising_and_without_zero(matrix: Matrix) -> None:
    codes, values = codebook(matrix)
    assert codes.dtype == np.uint8 and codes.shape == matrix.shape and values.dtype == np.float32
    assert 1 <= values.size <= CODEBOOK_SIZE and codes.max() < values.size
    assert (np.diff(values) > 0).all() and np.isfinite(values).all()
    assert values.all() or not matrix.any()


@settings(max_examples=60, deadline=None)
@given(few=st.lists(finite.filter(bool), min_size=1, max_size=16, unique=True), seed=st.integers(0, 1000))
def test_as_many_values_as_the_codebook_holds_are_kept_exactly(few: list[float], seed: int) -> None:
    drawn = np.random.default_rng(seed).choice(np.array([0.0, *few], np.float32), (9, 11))
    assert np.array_equal(requantised(drawn, "codebook4"), drawn)


@pytest.mark.parametrize("shift", [0.0, 1.0, 10.0])
def test_codebook_of_normal_values_is_about_the_best_there_is(shift: float) -> None:
    matrix = np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32) + np.float32(shift)
    lost = matrix - requantised(matrix, "codebook4")
    assert np.square(lost).sum() <= MOST_ENERGY_LOST * np.square(matrix - matrix.mean()).sum()


def test_int8_matrix_is_the_scale_times_the_code() -> None:
    matrix = random_matrix((64, 64), 0.9)
    codes, scale = int8_per_tensor(matrix)
    assert np.array_equal(requantised(matrix, "int8"), scale * codes.astype(np.float32))
    assert scale == np.abs(matrix).max() / np.float32(127)


def test_quantising_twice_changes_nothing() -> None:
    matrix = random_matrix((64, 64), 0.9)
    for weights in Weights:
        once = requantised(matrix, weights)
        assert np.array_equal(requantised(once, weights), once)


def test_float32_weights_are_left_alone() -> None:
    matrix = random_matrix((8, 8), 0.5)
    assert requantised(matrix, "float32") is matrix


def test_matrix_of_zeros_has_a_scale_and_a_table() -> None:
    zeros = np.zeros((3, 4), np.float32)
    assert int8_per_tensor(zeros)[1] == 1
    assert int8_per_row(zeros)[1].tolist() == [1, 1, 1]
    assert codebook(zeros)[1].tolist() == [0]
    assert not requantised(zeros, "codebook4").any()


def test_unknown_quantisation_is_refused() -> None:
    with pytest.raises(ValueError, match="float32, int8, codebook4, not int4"):
        requantised(np.ones((1, 1), np.float32), "int4")
