"""A .tflite that stores one tensor in any form, as the reader knows it; no operator uses it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import tflite_edit
from tflite_edit import flatbuffers, schema

_TYPES = {"float32": 0, "int32": 2, "int8": 9}
_VECTORS = {
    "uint8": (3, schema.Uint8VectorT, np.uint8),
    "uint16": (2, schema.Uint16VectorT, np.uint16),
    "int32": (1, schema.Int32VectorT, np.int32),
}


def weight_file(
    dense: NDArray[Any],
    *,
    sparse: bool = False,
    block: int = 1,
    pointers: str = "int32",
    indices: str = "uint16",
    beside: tuple[NDArray[Any], ...] = (),
) -> bytes:
    """The file.

    Args:
        dense: The tensor, float32 or int8.
        sparse: Whether only what is not zero is stored.
        block: Weights that are kept together.
        pointers: Type of the row pointers.
        indices: Type of the column indices.
        beside: More tensors, stored dense.
    """
    model = schema.ModelT()
    graph = schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    graph.tensors = []
    for values in (dense, *beside):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = b"weight", list(values.shape), _TYPES[values.dtype.name]
        model.buffers.append(schema.BufferT())
        tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
        tflite_edit.store(model, tensor, values)
    if sparse:
        flat = dense.reshape(-1, dense.shape[-1])
        tflite_edit.store_sparse(model, graph.tensors[0], flat, block)
        columns = np.nonzero(flat.reshape(len(flat), -1, block).any(2))[1]  # the editing tool keeps 16 bits of them
        _widen(graph.tensors[0].sparsity, dense.shape, pointers, indices, columns)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _widen(sparsity: Any, shape: tuple[int, ...], pointers: str, indices: str, columns: NDArray[np.intp]) -> None:
    level = sparsity.dimMetadata[1]
    for kind, name, values in (
        (pointers, "arraySegments", level.arraySegments.values),
        (indices, "arrayIndices", columns),
    ):
        number, vector, dtype = _VECTORS[kind]
        stored = vector()
        stored.values = values.astype(dtype)
        setattr(level, f"{name}Type", number)
        setattr(level, name, stored)
    front = [_dense_level(size) for size in shape[:-1]]
    sparsity.dimMetadata = [*front, *sparsity.dimMetadata[1:]]
    sparsity.traversalOrder = list(range(len(sparsity.dimMetadata)))


def _dense_level(size: int) -> Any:
    level = schema.DimensionMetadataT()
    level.format, level.denseSize = 0, size
    return level


def random_weight(shape: tuple[int, ...], kept: float, seed: int = 0, block: int = 1) -> NDArray[np.float32]:
    """Normal values; so many of them, or of the blocks of a row, are kept."""
    draw = np.random.default_rng(seed)
    keep = draw.random((*shape[:-1], shape[-1] // block)) < kept
    dense = draw.standard_normal(shape).astype(np.float32)
    return np.where(np.repeat(keep, block, axis=-1), dense, np.float32(0))
