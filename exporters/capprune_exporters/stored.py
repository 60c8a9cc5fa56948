"""A model file with rewritten weights, and what became of each weight tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StoredTensor:
    """How one weight tensor ended up in the file.

    Attributes:
        operator: The operator that uses it.
        shape: As in the file, (outputs, inputs) for a matrix.
        kept: Weights that are not zero in the file; quantisation may round small ones to zero.
        form: A name of `capprune_exporters.tflite.forms`.
        size_bytes: Values and, when sparse, indices and row pointers.
        name: Of the tensor in the file: the parameter's, where `make_sparse` was told of it.
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
    """A rewritten model file and what became of each of its weight tensors."""

    data: bytes
    tensors: tuple[StoredTensor, ...]

    @property
    def kept(self) -> int:
        """Weights that are not zero, in all tensors together."""
        return sum(tensor.kept for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """What all weight tensors take in the file; the rest is the graph, biases included."""
        return sum(tensor.size_bytes for tensor in self.tensors)
