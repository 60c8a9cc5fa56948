"""The inverse of `sparse`: a .tflite with every weight in dense float32, as the converter wrote it.

So a bundle can be compared with its dense form without the run that it came from. Values that were rounded for storage
stay rounded. Zeros are stored like other values.
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
    5  # version of FULLY_CONNECTED with that option; version 1, also of the other operators, reads float32 weights
)
EXPANDING = ("DENSIFY", "DEQUANTIZE")  # operators that only expand a stored weight


def make_dense(data: bytes) -> bytes:
    """Revert `make_sparse` on a .tflite.

    Args:
        data: A model with float32 activations: a `step`, not an encoder that computes in int8.

    Returns:
        The same graph with dense float32 weights, and without the operators that expanded them.

    Raises:
        ExportError: The model has more than one subgraph.
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
    """Return whether a tensor is stored, and sparse or int8."""
    data = model.buffers[tensor.buffer].data
    stored = data is not None and len(data) > 0
    return stored and (tensor.sparsity is not None or tensor.type == schema.TensorType.INT8)


def _store_dense(model: Any, tensor: Any) -> None:
    matrix = _stored(model, tensor).dense()
    tensor.type, tensor.sparsity, tensor.quantization = schema.TensorType.FLOAT32, None, None
    tensor.buffer = add_buffer(model, matrix.tobytes())


def _stored(model: Any, tensor: Any) -> SparseWeights:
    """Return the stored content of a tensor, in its storage form."""
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
    """Remove an expanding operator from the graph, if its weight is dense float32 now."""
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
