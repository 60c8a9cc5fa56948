"""A model file with rewritten weights, and the storage of each weight tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StoredTensor:
    """Storage of one weight tensor in the file.

    Attributes:
        operator: The operator that uses it.
        shape: Shape in the file, (outputs, inputs) for a matrix.
        kept: Number of weights that are not zero in the file; quantisation may round small ones to zero.
        form: A name of `capprune_exporters.tflite.forms`.
        size_bytes: Size of values and, if sparse, indices and row pointers.
        name: Name of the tensor in the file: the parameter's, if `make_sparse` was given it.
    """

    operator: str
    shape: tuple[int, ...]
    kept: int
    form: str
    size_bytes: int
    name: str = ""

    @property
    def sparsity(self) -> float:
        """Share of zeros, 0 to 1."""
        return 1 - self.kept / int(np.prod(self.shape))


@dataclass(frozen=True)
class SparseModel:
    """A rewritten model file and the storage of each of its weight tensors."""

    data: bytes
    tensors: tuple[StoredTensor, ...]

    @property
    def kept(self) -> int:
        """Number of weights that are not zero, over all tensors."""
        return sum(tensor.kept for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """Size of all weight tensors in the file; the rest is the graph, biases included."""
        return sum(tensor.size_bytes for tensor in self.tensors)
