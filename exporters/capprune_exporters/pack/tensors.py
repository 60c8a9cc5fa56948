"""The tensors that a model file stores, of a .tflite and of an .onnx alike, as views into the file."""

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
        name: In the file.
        shape: Dense.
        values: Those that are stored, `(n,)`.
        sparsity: Where they stand, when they are not all; an ONNX file has no such thing, its gaps are tensors.
    """

    name: str
    shape: tuple[int, ...]
    values: NDArray[Any]
    sparsity: Sparsity | None = None

    @property
    def elements(self) -> int:
        """How many numbers the dense tensor has."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Values and, where sparse, indices and row pointers."""
        levels = self.sparsity.dimensions if self.sparsity is not None else ()
        places = sum(level.segments.nbytes + level.indices.nbytes for level in levels if level.compressed)
        return int(self.values.nbytes + places)


def read_tensors(data: bytes, name: str) -> Iterator[ModelTensor]:
    """The stored tensors of a model file that the verifier has passed.

    Args:
        data: The whole file.
        name: Of the file, whose ending tells what it is.
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
    """Where in the file a view into it begins."""
    return int(view.ctypes.data - file.ctypes.data)
