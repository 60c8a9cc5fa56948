"""The way back from `sparse`: a .tflite with every weight as the converter wrote it, dense float32.

A bundle can so be timed against its own dense self where the run that it came from is not at hand. Values that were rounded
when they were stored stay rounded; zeros become numbers like others again.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from capprune_exporters.tflite.graph import (
    add_buffer,
    forget_unused_buffers,
    operator_name,
    pack,
    set_version,
    unpack,
)
from capprune_exporters.weights import (
    BlockWeights,
    CsrWeights,
    DenseWeights,
    Float32Values,
    Int8Values,
    SparseWeights,
    Values,
)

KEEP_DIMENSIONS_VERSION = (
    5  # of FULLY_CONNECTED; without that option, as of the others, 1 is the version of float32 weights
)
EXPANDING = ("DENSIFY", "DEQUANTIZE")  # operators that only turn a stored weight into another form of it


def make_dense(data: bytes) -> bytes:
    """Undo what `make_sparse` did to a .tflite.

    Args:
        data: A model whose activations are float32: a `step`, not an encoder that computes in int8.

    Returns:
        The same graph with dense float32 weights, and without the operators that expanded them.

    Raises:
        ExportError: If the model has more than one subgraph.
    """
    model = unpack(data)
    graph = model.subgraphs[0]
    weights = {index for index, tensor in enumerate(graph.tensors) if _is_rewritten(model, tensor)}
    for index in weights:
        _store_dense(model, graph.tensors[index])
    for operator in list(graph.operators):
        if operator_name(model, operator) in EXPANDING:
            _leave_out(model, operator, weights)
    for operator in graph.operators:
        if weights.intersection(operator.inputs):
            keeps = getattr(operator.builtinOptions, "keepNumDims", False)
            set_version(model, operator, KEEP_DIMENSIONS_VERSION if keeps else 1)
    forget_unused_buffers(model)
    return pack(model)


def _is_rewritten(model: Any, tensor: Any) -> bool:
    """Whether a tensor is stored, and sparse or in int8."""
    data = model.buffers[tensor.buffer].data
    stored = data is not None and len(data) > 0
    return stored and (tensor.sparsity is not None or tensor.type == schema.TensorType.INT8)


def _store_dense(model: Any, tensor: Any) -> None:
    matrix = _stored(model, tensor).dense()
    tensor.type, tensor.sparsity, tensor.quantization = schema.TensorType.FLOAT32, None, None
    tensor.buffer = add_buffer(model, matrix.tobytes())


def _stored(model: Any, tensor: Any) -> SparseWeights:
    """What a tensor holds, in the form in which it holds it."""
    rows, columns = prod(tensor.shape[:-1]), int(tensor.shape[-1])
    values = _values(model, tensor)
    if tensor.sparsity is None:
        return DenseWeights((rows, columns), values)
    kept = next(one for one in tensor.sparsity.dimMetadata if one.format == schema.DimensionType.SPARSE_CSR)
    pointers, places = (
        np.asarray(vector.values).astype(np.int64) for vector in (kept.arraySegments, kept.arrayIndices)
    )
    if tensor.sparsity.blockMap is None or not len(tensor.sparsity.blockMap):
        return CsrWeights((rows, columns), pointers, places, values)
    block = int(tensor.sparsity.dimMetadata[-1].denseSize)
    return BlockWeights((rows, columns), block, pointers, places, values)


def _values(model: Any, tensor: Any) -> Values:
    content = bytes(model.buffers[tensor.buffer].data)
    if tensor.type == schema.TensorType.FLOAT32:
        return Float32Values(np.frombuffer(content, np.float32))
    return Int8Values(np.frombuffer(content, np.int8), np.asarray(tensor.quantization.scale, np.float32))


def _leave_out(model: Any, operator: Any, weights: set[int]) -> None:
    """Take an expanding operator out of the graph, where what it expands is float32 and dense now."""
    graph = model.subgraphs[0]
    (source,), (expanded,) = operator.inputs, operator.outputs
    gather = next((one for one in graph.operators if source in list(one.outputs)), None)
    if source in weights:
        for user in graph.operators:
            user.inputs = [source if used == expanded else used for used in user.inputs]
    elif gather is not None and operator_name(model, gather) == "GATHER" and weights.intersection(gather.inputs):
        gather.outputs = [expanded]
    else:
        return
    graph.operators.remove(operator)
