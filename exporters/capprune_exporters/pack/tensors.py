"""The stored tensors of a model file, a .tflite or an .onnx, as views of the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.formats import kind_of_name
from capprune_runtime.onnx.file import read_onnx
from capprune_runtime.tflite.file import Sparsity, read_tflite


@dataclass(frozen=True, eq=False)
class ModelTensor:
    """One stored tensor.

    Attributes:
        name: Name in the file.
        shape: Dense shape.
        values: Stored values, `(n,)`.
        sparsity: Positions of the values if not all are stored. None in an ONNX file, whose gaps are tensors.
    """

    name: str
    shape: tuple[int, ...]
    values: NDArray[Any]
    sparsity: Sparsity | None = None

    @property
    def elements(self) -> int:
        """Number of elements of the dense tensor."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Size of values and, if sparse, indices and row pointers."""
        levels = self.sparsity.dimensions if self.sparsity is not None else ()
        places = sum(level.segments.nbytes + level.indices.nbytes for level in levels if level.compressed)
        return int(self.values.nbytes + places)


def read_tensors(data: bytes, name: str) -> Iterator[ModelTensor]:
    """Return the stored tensors of a model file that the verifier has accepted.

    Args:
        data: The whole file.
        name: Name of the file; its extension gives the format.
    """
    if kind_of_name(name) == "onnx":
        for tensor in read_onnx(data, name).initializers.values():
            yield ModelTensor(tensor.name, tensor.shape, tensor.values.reshape(-1))
        return
    model = read_tflite(data, name)
    for stored in model.tensors:
        if model.is_constant(stored):
            yield ModelTensor(stored.name, stored.shape, model.stored_values(stored), stored.sparsity)


def offset_of(view: NDArray[np.generic], file: NDArray[np.uint8]) -> int:
    """Return the offset in the file at which a view of it starts."""
    return int(view.ctypes.data - file.ctypes.data)
