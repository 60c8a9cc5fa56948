"""What a .tflite file says, computed in plain NumPy: the judge of whether an interpreter understood it.

Every number is carried with how far an interpreter may rightly be from it: float32 rounding and overflow, the approximations
of tanh and softmax, and the quantisation of activations, each passed on through every operator behind. So one tolerance
holds for a file whose weights a mutation made huge and for one it left alone, and it is as narrow as the file allows.

    value   float64; of int8 tensors the real number, scale · (stored - zero point), before it is rounded to the grid
    error   float64, elementwise; infinite where nothing can be said, as after an overflow
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reference_operators import MOVES, STEPS
from reference_values import MAX_ELEMENTS, Call, Known, Unknown, as_stored, exact, real_numbers, stored

from capprune_runtime.tflite.file import TfliteModel


def run_reference(model: TfliteModel, inputs: Mapping[int, NDArray[Any]]) -> dict[int, Known]:
    """Compute every output of the model.

    Args:
        model: A file that the verifier has passed.
        inputs: The model's inputs by tensor index.

    Returns:
        The model's outputs by tensor index.

    Raises:
        Unknown: The reference cannot say what the file computes.
        OutOfRange: An index is out of range.
    """
    known = {index: exact(real_numbers(array, model.tensors[index])) for index, array in inputs.items()}
    for tensor in model.tensors:
        if tensor.elements > MAX_ELEMENTS:
            raise Unknown(f"{tensor.elements} elements")
    with np.errstate(all="ignore"):
        for operator in model.operators:
            given = tuple(None if index < 0 else _given(model, known, index) for index in operator.inputs)
            if operator.name not in STEPS:
                raise Unknown(operator.name)
            results = STEPS[operator.name](Call(model, operator, given))
            for index, result in zip(operator.outputs, results, strict=True):
                known[index] = as_stored(result, model.tensors[index], moved=operator.name in MOVES)
    return {index: known[index] for index in model.outputs}


def _given(model: TfliteModel, known: dict[int, Known], index: int) -> Known:
    if index not in known:
        known[index] = exact(stored(model, model.tensors[index]))
    return known[index]
