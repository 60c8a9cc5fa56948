"""Editing a .tflite through the schema's own object API, which the runtime never imports: the other opinion."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

Edit = Callable[[Any], None]


def edited(data: bytes, *edits: Edit) -> bytes:
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for edit in edits:
        edit(model)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def add_metadata(name: str, content: bytes) -> Edit:
    def edit(model: Any) -> None:
        entry, buffer = schema.MetadataT(), schema.BufferT()
        entry.name, entry.buffer = name.encode(), len(model.buffers)
        buffer.data = np.frombuffer(content, np.uint8)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]

    return edit


def with_metadata(data: bytes, vocabulary: bytes, described: bytes) -> bytes:
    return edited(data, add_metadata("capprune.vocabulary", vocabulary), add_metadata("capprune.model", described))


def shape_of(data: bytes, name: str) -> tuple[int, ...]:
    """The shape of an input of the signature."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    index = next(entry.tensorIndex for entry in model.signatureDefs[0].inputs if entry.name == name.encode())
    return tuple(model.subgraphs[0].tensors[index].shape)


def scores_operator(model: Any) -> Any:
    """The FULLY_CONNECTED that gives the scores: the last one."""
    return [operator for operator in model.subgraphs[0].operators if code_of(model, operator) == 9][-1]


def scores_weight(model: Any) -> Any:
    return model.subgraphs[0].tensors[scores_operator(model).inputs[1]]


def code_of(model: Any, operator: Any) -> int:
    return int(model.operatorCodes[operator.opcodeIndex].builtinCode)


def first_operator(model: Any, code: int) -> Any:
    return operators_of(model, code)[0]


def operators_of(model: Any, code: int) -> list[Any]:
    return [operator for operator in model.subgraphs[0].operators if code_of(model, operator) == code]


def writer(model: Any, tensor: int) -> Any:
    """The operator that computes a tensor."""
    return next(operator for operator in model.subgraphs[0].operators if tensor in operator.outputs)


def dense_values(model: Any, tensor: Any) -> NDArray[np.float32]:
    return stored_floats(model, tensor).reshape(tensor.shape)


def stored_floats(model: Any, tensor: Any) -> NDArray[np.float32]:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return np.frombuffer(data.tobytes(), np.float32)


def store(model: Any, tensor: Any, values: NDArray[Any]) -> None:
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)


def set_scales(tensor: Any, scales: list[float], zero_points: list[int], axis: int = 0) -> None:
    quantisation = schema.QuantizationParametersT()
    quantisation.scale = np.array(scales, np.float32)
    quantisation.zeroPoint = np.array(zero_points, np.int64)
    quantisation.quantizedDimension = axis
    tensor.quantization = quantisation


def store_sparse(model: Any, tensor: Any, dense: NDArray[Any], block: int = 1) -> None:
    """Store a 2-D weight as CSR, or as 1×block blocks; what is all zero in it is not kept."""
    rows, columns = dense.shape[0], dense.shape[1] // block
    blocks = dense.reshape(rows, columns, block)
    kept = blocks.any(axis=2)
    pointers = np.concatenate([[0], kept.sum(axis=1).cumsum()])
    levels = [_level(dense_size=rows), _level(segments=pointers, indices=np.nonzero(kept)[1])]
    if block > 1:
        levels.append(_level(dense_size=block))
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder = list(range(len(levels)))
    sparsity.blockMap = [1] if block > 1 else None
    sparsity.dimMetadata = levels
    tensor.sparsity = sparsity
    store(model, tensor, blocks[kept])


def _level(dense_size: int = 0, segments: NDArray[Any] | None = None, indices: NDArray[Any] | None = None) -> Any:
    level = schema.DimensionMetadataT()
    level.format, level.denseSize = (0, dense_size) if segments is None else (1, 0)
    if segments is not None and indices is not None:
        level.arraySegmentsType, level.arraySegments = 1, schema.Int32VectorT()
        level.arraySegments.values = segments.astype(np.int32)
        level.arrayIndicesType, level.arrayIndices = 2, schema.Uint16VectorT()
        level.arrayIndices.values = indices.astype(np.uint16)
    return level


def thinned(dense: NDArray[np.float32], block: int = 1, seed: int = 3) -> NDArray[np.float32]:
    """A quarter of the weights, or of the blocks; the first row empty, the second full."""
    rows, columns = dense.shape[0], dense.shape[1] // block
    keep = np.random.default_rng(seed).random((rows, columns)) < 0.25
    keep[0], keep[1] = False, True
    return np.where(np.repeat(keep, block, axis=1), dense, np.float32(0))


def make_csr(model: Any) -> None:
    weight = scores_weight(model)
    store_sparse(model, weight, thinned(dense_values(model, weight)))
    set_version(model, scores_operator(model), 8)


def make_every_csr(model: Any) -> None:
    """Every FULLY_CONNECTED of more than one row sparse, as an export writes them."""
    for operator in model.subgraphs[0].operators:
        weight = model.subgraphs[0].tensors[operator.inputs[1]] if code_of(model, operator) == 9 else None
        if weight is not None and weight.shape[0] > 1:
            store_sparse(model, weight, thinned(dense_values(model, weight)))
            set_version(model, operator, 8)


def make_float_blocks(model: Any) -> None:
    weight = scores_weight(model)
    store_sparse(model, weight, thinned(dense_values(model, weight), 4), 4)
    set_version(model, scores_operator(model), 8)


def make_int8(model: Any, *, per_channel: bool = False, block: int = 0) -> None:
    """Store the scores' weight as int8: dense for block 0, thinned as CSR for 1, else thinned in blocks."""
    weight = scores_weight(model)
    dense = dense_values(model, weight)
    if block:
        dense = thinned(dense, block)
    largest = np.abs(dense).max(axis=1) if per_channel else np.abs(dense).max(keepdims=True).ravel()
    scales = np.maximum(largest, 1e-3) / 127
    quantised = np.round(dense / scales[:, np.newaxis]).astype(np.int8)
    weight.type = 9
    set_scales(weight, scales.tolist(), [0] * len(scales))
    if block:
        store_sparse(model, weight, quantised, block)
        set_version(model, scores_operator(model), 8)
    else:
        store(model, weight, quantised)


def make_int8_blocks(model: Any) -> None:
    make_int8(model, block=16)


def make_int8_csr(model: Any) -> None:
    make_int8(model, block=1)


def make_int8_blocks_per_row(model: Any) -> None:
    make_int8(model, block=16, per_channel=True)


def make_int8_per_row(model: Any) -> None:
    make_int8(model, per_channel=True)


def make_int8_embedding_per_row(model: Any) -> None:
    table = model.subgraphs[0].tensors[first_operator(model, 7).inputs[1]]
    dense = dense_values(model, table)
    rows = np.abs(dense).max(axis=1) / 127
    table.type = 9
    set_scales(table, rows.tolist(), [0] * len(rows))
    store(model, table, np.round(dense / rows[:, np.newaxis]).astype(np.int8))


def make_version(version: int) -> Edit:
    """The scores' FULLY_CONNECTED of another version."""
    return lambda model: set_version(model, scores_operator(model), version)


def make_thin(block: int) -> Edit:
    """The scores' weight dense, with the zeros of the sparse ones."""

    def edit(model: Any) -> None:
        weight = scores_weight(model)
        store(model, weight, thinned(dense_values(model, weight), block))

    return edit


def make_thin_embedding(model: Any) -> None:
    table = model.subgraphs[0].tensors[first_operator(model, 7).inputs[1]]
    store(model, table, thinned(dense_values(model, table)))


def set_version(model: Any, operator: Any, version: int) -> None:
    """Give one operator a code of its own with this version."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = code_of(model, operator)
    code.version = version
    model.operatorCodes.append(code)
    operator.opcodeIndex = len(model.operatorCodes) - 1


def make_densified_embedding(model: Any) -> None:
    """Put a DENSIFY before the EMBEDDING_LOOKUP, and store the table as CSR."""
    lookup = first_operator(model, 7)
    table = model.subgraphs[0].tensors[lookup.inputs[1]]
    dense = computed_like(model, table, b"densified")
    store_sparse(model, table, thinned(dense_values(model, table)))
    densify = new_operator(model, 124, [lookup.inputs[1]], [dense], 99, schema.DensifyOptionsT())
    lookup.inputs = [lookup.inputs[0], dense]
    model.subgraphs[0].operators.insert(0, densify)


def make_densified_int8_embedding(model: Any) -> None:
    """Int8 CSR behind a DENSIFY, before the EMBEDDING_LOOKUP."""
    make_densified_embedding(model)
    densify = model.subgraphs[0].operators[0]
    sparse, dense = (model.subgraphs[0].tensors[ends[0]] for ends in (densify.inputs, densify.outputs))
    values = stored_floats(model, sparse)
    scale = float(np.abs(values).max() / 127)
    store(model, sparse, np.round(values / scale).astype(np.int8))
    for tensor in (sparse, dense):
        tensor.type = 9
        set_scales(tensor, [scale], [0])


def make_densified_int8_weight(model: Any) -> None:
    """Int8 CSR behind DENSIFY and DEQUANTIZE, before the FULLY_CONNECTED of the scores."""
    graph, user = model.subgraphs[0], scores_operator(model)
    weight = scores_weight(model)
    make_int8(model, block=1)
    set_version(model, user, 5)
    dense = computed_like(model, weight, b"densified")
    real = computed_like(model, weight, b"dequantised")
    graph.tensors[real].type, graph.tensors[real].quantization = 0, None
    densify = new_operator(model, 124, [user.inputs[1]], [dense], 99, schema.DensifyOptionsT())
    dequantise = new_operator(model, 6, [dense], [real], 38, schema.DequantizeOptionsT())
    user.inputs = [user.inputs[0], real, *user.inputs[2:]]
    graph.operators[:0] = [densify, dequantise]


def make_dequantised_embedding(model: Any) -> None:
    """Int8 CSR behind DENSIFY and DEQUANTIZE, before the EMBEDDING_LOOKUP: runtimes compute nonsense."""
    make_densified_int8_embedding(model)
    graph, lookup = model.subgraphs[0], first_operator(model, 7)
    real = computed_like(model, graph.tensors[lookup.inputs[1]], b"dequantised")
    graph.tensors[real].type, graph.tensors[real].quantization = 0, None
    graph.operators.insert(1, new_operator(model, 6, [lookup.inputs[1]], [real], 38, schema.DequantizeOptionsT()))
    lookup.inputs = [lookup.inputs[0], real]


def computed_like(model: Any, tensor: Any, name: bytes) -> int:
    """A new tensor like another one but without data; its index."""
    copy = schema.TensorT.__new__(schema.TensorT)
    copy.__dict__.update(tensor.__dict__)
    copy.name, copy.buffer, copy.sparsity = name, len(model.buffers), None
    model.buffers.append(schema.BufferT())
    model.subgraphs[0].tensors.append(copy)
    return len(model.subgraphs[0].tensors) - 1


def new_operator(model: Any, code: int, inputs: list[int], outputs: list[int], options_type: int, options: Any) -> Any:
    """An operator of version 1, not yet among those of the graph."""
    entry, operator = schema.OperatorCodeT(), schema.OperatorT()
    entry.builtinCode = entry.deprecatedBuiltinCode = code
    entry.version = 1
    model.operatorCodes.append(entry)
    operator.opcodeIndex, operator.inputs, operator.outputs = len(model.operatorCodes) - 1, inputs, outputs
    operator.builtinOptionsType, operator.builtinOptions = options_type, options
    return operator
