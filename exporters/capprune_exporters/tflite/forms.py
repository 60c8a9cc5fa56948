"""Storage forms of a weight matrix in a .tflite, the operators that support each, and their encoding.

    form               used by                              in the file
    dense_float32      anything                             every value
    csr_float32        FULLY_CONNECTED                      kept values, columns, row pointers
    densify_float32    anything, through a DENSIFY          the same; a filter (N, h, w, K) of a CONV_2D as well
    dense_int8         FULLY_CONNECTED, EMBEDDING_LOOKUP    every code, one scale
    block_1x16_int8    FULLY_CONNECTED                      kept blocks of codes, positions, row pointers, one scale
    densify_int8       FULLY_CONNECTED, EMBEDDING_LOOKUP,   kept codes, columns, row pointers, one scale
                       GATHER, through a DENSIFY

FULLY_CONNECTED with int8 weights has float32 inputs and outputs, and quantises its input to int8 itself (a hybrid
kernel).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from capprune_exporters.quantise import requantised
from capprune_exporters.tflite.graph import add_buffer
from capprune_exporters.weights import BlockWeights, CsrWeights, DenseWeights, Float32Values, Int8Values, SparseWeights
from capprune_runtime.errors import ExportError

FORMS = ("dense_float32", "csr_float32", "densify_float32", "dense_int8", "block_1x16_int8", "densify_int8")
DENSIFIED = ("densify_float32", "densify_int8")
ANY_RANK = ("dense_float32", "densify_float32")
BLOCK = 16
MOST_COLUMNS = 4096  # of a matrix in blocks, whose kernel stores the position of a block in a byte
MOST_BLOCKS = 255  # in a row, which the kernel counts in a byte

# An operator and the position of the weight among its inputs; forms that are not listed work with any operator.
FITS = {
    "csr_float32": {("FULLY_CONNECTED", 1)},
    "dense_int8": {("FULLY_CONNECTED", 1), ("EMBEDDING_LOOKUP", 1)},
    "block_1x16_int8": {("FULLY_CONNECTED", 1)},
    "densify_int8": {("FULLY_CONNECTED", 1), ("EMBEDDING_LOOKUP", 1), ("GATHER", 0)},
}
# Forms that users may ask for, and why they are not supported. The verifier refuses the same forms, and a test runs
# each.
COMPUTED_WRONGLY = {
    "csr_int8": "ai-edge-litert 2.3, tf.lite 2.21 and tflite-runtime 2.14 compute int8 without blocks incorrectly",
    "block_1x16_int8_per_row": "tflite-runtime 2.14 computes blocks with a scale per row incorrectly",
    "dense_int8_per_row": "tflite-runtime 2.14 computes a hybrid FULLY_CONNECTED with a scale per row incorrectly",
}

Matrix = npt.NDArray[np.float32]


def check_form(form: str, matrix: Matrix, used_by: Iterable[tuple[str, int]], name: str) -> None:
    """Check that a matrix and an operator that uses it support a form.

    Args:
        form: One of `FORMS`, or an unknown name.
        matrix: `(N, K)`.
        used_by: Operators and the position of the matrix among their inputs.
        name: Name of the tensor.

    Raises:
        ExportError: The form does not fit; the message has the reason.
    """
    if reason := COMPUTED_WRONGLY.get(form):
        raise ExportError(
            "a form that computes wrongly is never written",
            where=name,
            expected=", ".join(FORMS),
            found=f"{form}: {reason}",
        )
    if form not in FORMS:
        raise ExportError("there is no such form of storage", where=name, expected=", ".join(FORMS), found=form)
    if matrix.ndim != 2 and form not in ANY_RANK:
        raise ExportError(f"{form} is for matrices", where=name, expected="two dimensions", found=matrix.shape)
    for operator, place in used_by:
        if (fitting := FITS.get(form)) and (operator, place) not in fitting:
            expected = " or ".join(f"input {place} of {operator}" for operator, place in sorted(fitting))
            raise ExportError(
                f"{form} does not fit where the matrix is used",
                where=name,
                expected=expected,
                found=f"input {place} of {operator}",
            )
    if form == "block_1x16_int8":
        _check_blocks(matrix, name)


def encoded(form: str, matrix: Matrix, weights: str) -> SparseWeights:
    """Return the encoding of a matrix in a form.

    Args:
        form: One of `FORMS` except `dense_float32`.
        matrix: `(N, K)`; more dimensions count as a matrix of rows along the last one.
        weights: `float32`, `int8` or `codebook4`; the values of sparse float32 forms equal those of `requantised`.
    """
    matrix = matrix.reshape(-1, matrix.shape[-1])
    if form == "dense_int8":
        return DenseWeights.from_dense(matrix, "int8")
    if form == "block_1x16_int8":
        return BlockWeights.from_dense(matrix, BLOCK, "int8")
    if form == "densify_int8":
        return CsrWeights.from_dense(matrix, "int8")
    return CsrWeights.from_dense(requantised(matrix, weights))


def store(model: Any, tensor: Any, weights: SparseWeights) -> int:
    """Replace the content of a tensor; return the bytes of values, columns and row pointers."""
    match weights:
        case DenseWeights(values=values):
            size = 0
        case CsrWeights(values=values):
            size = _set_sparsity(tensor, weights.shape[1], weights.row_pointers, weights.columns)
        case BlockWeights(values=values):
            places = weights.shape[1] // weights.block
            size = _set_sparsity(tensor, places, weights.row_pointers, weights.block_columns, weights.block)
        case _:
            raise TypeError(f"a .tflite cannot hold {type(weights).__name__}")
    match values:
        case Float32Values(data):
            content = data.tobytes()
        case Int8Values(codes, scales):
            content = codes.tobytes()
            tensor.type = schema.TensorType.INT8
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = scales, np.zeros(scales.size, np.int64)
        case _:
            raise TypeError(f"a .tflite cannot hold {type(values).__name__}")
    tensor.buffer = add_buffer(model, content)  # a new buffer, because another tensor may share the old one
    return len(content) + size


def _set_sparsity(
    tensor: Any, columns: int, row_pointers: npt.NDArray[np.int64], places: npt.NDArray[np.int64], block: int = 1
) -> int:
    """Describe compressed rows, or blocks along them; return the bytes of pointers and positions."""
    kept = schema.DimensionMetadataT()
    kept.format = schema.DimensionType.SPARSE_CSR
    kept.arraySegmentsType, kept.arraySegments, segment_bytes = _index_vector(row_pointers, int(row_pointers[-1]))
    kept.arrayIndicesType, kept.arrayIndices, place_bytes = _index_vector(places, columns - 1)
    tensor.sparsity = schema.SparsityParametersT()
    tensor.sparsity.dimMetadata = [*map(_dense_level, tensor.shape[:-1]), kept]
    if block > 1:
        tensor.sparsity.dimMetadata.append(_dense_level(block))
        tensor.sparsity.blockMap = [1]
    tensor.sparsity.traversalOrder = list(range(len(tensor.sparsity.dimMetadata)))
    return segment_bytes + place_bytes


def _dense_level(size: int) -> Any:
    level = schema.DimensionMetadataT()
    level.format, level.denseSize = schema.DimensionType.DENSE, int(size)
    return level


def _index_vector(numbers: npt.NDArray[np.int64], largest: int) -> tuple[int, Any, int]:
    """Return the narrowest type that holds `largest`: its number in the schema, the vector, its bytes."""
    dtype: type[np.integer[Any]]
    if largest < 1 << 8:
        kind, vector, dtype = schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT(), np.uint8
    elif largest < 1 << 16:
        kind, vector, dtype = schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT(), np.uint16
    else:
        kind, vector, dtype = schema.SparseIndexVector.Int32Vector, schema.Int32VectorT(), np.int32
    vector.values = numbers.astype(dtype)
    return kind, vector, int(vector.values.nbytes)


def _check_blocks(matrix: Matrix, name: str) -> None:
    rows, columns = matrix.shape
    if columns % BLOCK or columns > MOST_COLUMNS:
        raise ExportError(
            "rows of this length cannot be stored in blocks",
            where=name,
            expected=f"a multiple of {BLOCK}, at most {MOST_COLUMNS}",
            found=columns,
        )
    most = int(matrix.reshape(rows, -1, BLOCK).any(-1).sum(1).max())
    if most > MOST_BLOCKS:
        raise ExportError("a row keeps too many blocks", where=name, expected=f"at most {MOST_BLOCKS}", found=most)
