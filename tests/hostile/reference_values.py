"""What the reference knows of a tensor, and what the file stores of it; see `reference`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.tflite.file import Operator, Tensor, TfliteModel

Array = NDArray[np.float64]

ROUNDING = 2.0**-23  # of one float32 operation, and of one conversion, with room for a fused or an unfused product
SMALLEST = 2.0**-126  # kernels may take anything below for zero
LARGEST = float(np.finfo(np.float32).max)
FUNCTION_ERROR = 4e-6  # of the rational approximations of tanh, logistic and exp
GRID_STEPS = 1.0  # an int8 result: half a step of rounding, and as much for a multiplier in fixed point
LOOKUP_STEPS = 2.0  # int8 functions from tables of 256 entries
HYBRID_STEPS = 1.0  # float activations that a kernel quantises: half a step, and as much for a rounded zero point
EXACT_WHOLE = 2.0**53
MAX_ELEMENTS = 1 << 21  # in one tensor or weight window; beyond, the file is not worth the time


class Unknown(Exception):
    """The reference does not know this operator on these types, or it would take too long."""


class OutOfRange(Exception):
    """An index outside of what it points into: an interpreter must refuse to run."""


@dataclass(frozen=True, eq=False)
class Known:
    """What a tensor holds, and how far an interpreter may be from it."""

    value: Array
    error: Array

    def moved(self, move: Callable[[Array], Array]) -> Known:
        """The same numbers in other places."""
        return Known(move(self.value), move(self.error))

    @property
    def largest(self) -> Array:
        """The largest size that each number may have in an interpreter."""
        return np.abs(self.value) + self.error


@dataclass(frozen=True, eq=False)
class Call:
    """One operator with what it is given; an input that is left out is None."""

    model: TfliteModel
    operator: Operator
    inputs: tuple[Known | None, ...]

    def __getitem__(self, position: int) -> Known:
        known = self.inputs[position]
        assert known is not None
        return known

    def tensor(self, position: int) -> Tensor:
        return self.model.tensors[self.operator.inputs[position]]

    @property
    def output(self) -> Tensor:
        return self.model.tensors[self.operator.outputs[0]]

    def option(self, name: str) -> int:
        return int(self.operator.options.get(name, 0))

    def whole(self, position: int) -> tuple[int, ...]:
        """A stored list of whole numbers."""
        return tuple(int(number) for number in self[position].value.ravel())


Step = Callable[[Call], "list[Known]"]


def exact(array: NDArray[Any]) -> Known:
    """Numbers that every interpreter has alike."""
    value = array.astype(np.float64)
    return Known(value, np.zeros_like(value))


def stored(model: TfliteModel, tensor: Tensor) -> Array:
    """The numbers of a stored tensor, dense and real."""
    values = model.stored_values(tensor)
    dense = values.reshape(tensor.shape) if tensor.sparsity is None else _expanded(values, tensor)
    return real_numbers(dense, tensor)


def real_numbers(array: NDArray[Any], tensor: Tensor) -> Array:
    """What the numbers of a tensor stand for."""
    real: Array = array.astype(np.float64)
    if tensor.quantisation is not None:
        scales, zero_points = (
            array.astype(np.float64) for array in (tensor.quantisation.scales, tensor.quantisation.zero_points)
        )
        along = [1] * real.ndim
        if scales.size > 1:
            along[tensor.quantisation.axis] = scales.size
        scales, zero_points = scales.reshape(along), zero_points.reshape(along)
        real = scales * (real - zero_points)
    return real


def _expanded(values: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """A sparse tensor, row by row: the definition, with nothing clever in it."""
    sparsity = tensor.sparsity
    assert sparsity is not None
    level = next(level for level in sparsity.dimensions if level.compressed)
    block = sparsity.dimensions[-1].dense_size if sparsity.block_map else 1
    dense = np.zeros((tensor.elements // tensor.shape[-1], tensor.shape[-1]), values.dtype)
    for row in range(len(dense)):
        for place in range(int(level.segments[row]), int(level.segments[row + 1])):
            column = int(level.indices[place]) * block
            dense[row, column : column + block] = values[place * block : (place + 1) * block]
    return dense.reshape(tensor.shape)


def as_stored(result: Known, tensor: Tensor, *, moved: bool) -> Known:
    """What is left of a result in the type of the tensor it is written to; what was only moved is not rounded again."""
    value = result.value.reshape(tensor.shape)
    error = np.broadcast_to(result.error, result.value.shape).reshape(tensor.shape)
    error = np.where(np.isnan(error) | ~np.isfinite(value), np.inf, error)
    value = np.where(np.isfinite(value), value, 0)
    if moved:
        return Known(value, error)
    if tensor.dtype == "int8":
        return _on_grid(value, error, tensor)
    if tensor.dtype == "float32":
        error = error + ROUNDING * np.abs(value) + SMALLEST
        return Known(value, np.where(np.abs(value) + error >= LARGEST, np.inf, error))
    if tensor.dtype in ("int32", "int64"):
        limit = 2.0**31 if tensor.dtype == "int32" else EXACT_WHOLE
        return Known(value, np.where((value < -limit) | (value >= limit), np.inf, error))
    raise Unknown(f"computed {tensor.dtype}")


def _on_grid(value: Array, error: Array, tensor: Tensor) -> Known:
    quantisation = tensor.quantisation
    assert quantisation is not None
    scale, zero_point = float(quantisation.scales[0]), int(quantisation.zero_points[0])
    low, high = scale * (-128 - zero_point), scale * (127 - zero_point)
    error = np.where(np.isinf(error), np.inf, np.minimum(error + GRID_STEPS * scale, high - low))
    return Known(value.clip(low, high), error)
