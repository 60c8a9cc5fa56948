"""Storage of one weight matrix: dense, in compressed rows, or in blocks along the rows.

    DenseWeights    every value
    CsrWeights      the values that are not zero, with their columns, row by row
    BlockWeights    the blocks of B neighbours in a row that are not all zero, with their positions, row by row

A sparse form stores at least one value, a zero if necessary. Each form holds its values in float32, as int8 codes with
scales, or as codes of a codebook. This module is the plain NumPy reference: `dense()` is compared with the content of
files, and `matvec()` with the results of kernels.

Shapes: N rows (outputs), K columns (inputs), n stored values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capprune_exporters.quantise import codebook, int8_per_row, int8_per_tensor

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Float32Values:
    """Unquantised values, `(n,)`."""

    data: Floats

    def decoded(self, rows: Indices) -> Floats:
        """Return the values; `rows` has the row of each."""
        return self.data


@dataclass(frozen=True, eq=False)
class Int8Values:
    """Codes `(n,)`, -127 to 127, and one scale `(1,)` or one for each row `(N,)`; value = scale · code."""

    codes: NDArray[np.int8]
    scales: Floats

    def decoded(self, rows: Indices) -> Floats:
        """Return `np.float32(scale) * code`, rounded to float32 once, as in the kernels; `rows` has the row of each."""
        scales = self.scales[rows] if self.scales.size > 1 else self.scales
        return scales * self.codes.astype(np.float32)


@dataclass(frozen=True, eq=False)
class CodebookValues:
    """Codes `(n,)` of a table of at most 16 values."""

    codes: NDArray[np.uint8]
    codebook: Floats

    def decoded(self, rows: Indices) -> Floats:
        """Return the table's values; `rows` has the row of each."""
        return self.codebook[self.codes]


Values: TypeAlias = Float32Values | Int8Values | CodebookValues


@dataclass(frozen=True, eq=False)
class SparseWeights(ABC):
    """A matrix `(N, K)` in a storage form."""

    shape: tuple[int, int]

    @abstractmethod
    def dense(self) -> Floats:
        """Return the whole matrix `(N, K)`."""

    @abstractmethod
    def matvec(self, x: Floats) -> Floats:
        """Return the product `(N,)` with `x` `(K,)`, summed row by row in float64, as a reference."""

    @property
    def kept(self) -> int:
        """Number of weights that are not zero."""
        return int(np.count_nonzero(self.dense()))


@dataclass(frozen=True, eq=False)
class DenseWeights(SparseWeights):
    """All values, row by row."""

    values: Values

    @classmethod
    def from_dense(cls, dense: Floats, weights: str = "float32") -> DenseWeights:
        """Store a matrix; for `weights` see `quantised`.

        Raises:
            ValueError: `weights` is `codebook4`, which has no code for zero.
        """
        codes, values = quantised(dense, weights)
        if weights == "codebook4":
            raise ValueError("a codebook has no code for zero, so that zeros cannot be stored in it")
        return cls(_shape(dense), values(codes.ravel()))

    def dense(self) -> Floats:
        """See the base."""
        rows = np.repeat(np.arange(self.shape[0]), self.shape[1])
        return self.values.decoded(rows).reshape(self.shape)

    def matvec(self, x: Floats) -> Floats:
        """See the base."""
        return np.array([_dot(row, x) for row in self.dense()], np.float32)


@dataclass(frozen=True, eq=False)
class CsrWeights(SparseWeights):
    """Compressed rows: row i holds the values and columns from `row_pointers[i]` up to `row_pointers[i + 1]`.

    Attributes:
        row_pointers: `(N + 1,)`.
        columns: `(n,)`, ascending within a row.
        values: The n values.
    """

    row_pointers: Indices
    columns: Indices
    values: Values

    @classmethod
    def from_dense(cls, dense: Floats, weights: str = "float32") -> CsrWeights:
        """Store the values that are not zero after quantisation; for `weights` see `quantised`."""
        codes, values = quantised(dense, weights)
        kept = _at_least_one((dense if weights == "codebook4" else codes) != 0)
        return cls(_shape(dense), _pointers(kept), np.nonzero(kept)[1], values(codes[kept]))

    def dense(self) -> Floats:
        """See the base."""
        matrix = np.zeros(self.shape, np.float32)
        rows = _rows(self.row_pointers)
        matrix[rows, self.columns] = self.values.decoded(rows)
        return matrix

    def matvec(self, x: Floats) -> Floats:
        """See the base."""
        values = self.values.decoded(_rows(self.row_pointers))
        rows = (slice(*ends) for ends in pairwise(self.row_pointers))
        return np.array([_dot(values[row], x[self.columns[row]]) for row in rows], np.float32)


@dataclass(frozen=True, eq=False)
class BlockWeights(SparseWeights):
    """Blocks of `block` neighbours: row i holds those from `row_pointers[i]` up to `row_pointers[i + 1]`.

    Attributes:
        block: B; K is a multiple of it.
        row_pointers: `(N + 1,)`, in blocks.
        block_columns: `(n / B,)`, in blocks, ascending within a row.
        values: The n values, block by block; zeros inside a block are stored.
    """

    block: int
    row_pointers: Indices
    block_columns: Indices
    values: Values

    @classmethod
    def from_dense(cls, dense: Floats, block: int, weights: str = "float32") -> BlockWeights:
        """Store the blocks that are not all zero after quantisation; for `weights` see `quantised`.

        Raises:
            ValueError: K is not a multiple of `block`, or `weights` is `codebook4`, which has no code for zero.
        """
        rows, columns = _shape(dense)
        if columns % block:
            raise ValueError(f"rows of {columns} do not divide into blocks of {block}")
        if weights == "codebook4":
            raise ValueError("a codebook has no code for zero, so that zeros cannot be stored in it")
        codes, values = quantised(dense, weights)
        blocks = codes.reshape(rows, columns // block, block)
        kept = _at_least_one(blocks.any(-1))
        return cls((rows, columns), block, _pointers(kept), np.nonzero(kept)[1], values(blocks[kept].ravel()))

    def dense(self) -> Floats:
        """See the base."""
        rows, columns = self.shape
        matrix = np.zeros((rows, columns // self.block, self.block), np.float32)
        places = _rows(self.row_pointers)
        matrix[places, self.block_columns] = self._decoded(places)
        return matrix.reshape(rows, columns)

    def matvec(self, x: Floats) -> Floats:
        """See the base."""
        values = self._decoded(_rows(self.row_pointers))
        pieces = x.reshape(-1, self.block)[self.block_columns]
        rows = (slice(*ends) for ends in pairwise(self.row_pointers))
        return np.array([_dot(values[row].ravel(), pieces[row].ravel()) for row in rows], np.float32)

    def _decoded(self, rows: Indices) -> Floats:
        """Return the values `(n / B, B)`, given the row of each block."""
        return self.values.decoded(rows.repeat(self.block)).reshape(-1, self.block)


def quantised(dense: Floats, weights: str) -> tuple[NDArray[Any], Callable[[NDArray[Any]], Values]]:
    """Return what is stored for each element of a matrix, and a function that makes the values of the kept ones.

    Args:
        dense: `(N, K)`.
        weights: `float32`, `int8` (one scale), `int8_per_row` or `codebook4`.

    Raises:
        ValueError: There is no such quantisation.
    """
    if weights == "float32":
        return dense, Float32Values
    if weights == "int8":
        codes, scale = int8_per_tensor(dense)
        return codes, lambda kept: Int8Values(kept, np.array([scale], np.float32))
    if weights == "int8_per_row":
        codes, scales = int8_per_row(dense)
        return codes, lambda kept: Int8Values(kept, scales)
    if weights == "codebook4":
        places, table = codebook(dense)
        return places, lambda kept: CodebookValues(kept, table)
    raise ValueError(f"weights can be float32, int8, int8_per_row or codebook4, not {weights}")


def _shape(dense: Floats) -> tuple[int, int]:
    rows, columns = dense.shape
    return rows, columns


def _at_least_one(kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask, with the first position kept if none is: runtimes read past the end of an empty tensor."""
    if not kept.any():
        kept[0, 0] = True
    return kept


def _pointers(kept: NDArray[np.bool_]) -> Indices:
    """Return the row pointers of a mask `(N, places)`."""
    pointers: Indices = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int64)
    return pointers


def _rows(row_pointers: Indices) -> Indices:
    """Return the row of each stored value or block."""
    return np.repeat(np.arange(len(row_pointers) - 1), np.diff(row_pointers))


def _dot(values: Floats, x: Floats) -> float:
    return float(values.astype(np.float64) @ x.astype(np.float64))
