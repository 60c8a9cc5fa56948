"""A .tflite that is one matrix and the operator that uses it, and the plain reference of what is stored in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from real_parts import Case

from capprune_exporters.tflite.sparse import pack
from capprune_runtime.tflite.check import check_tflite
from capprune_runtime.tflite.file import Tensor, TfliteModel

SIGNATURE = "product"
X, WEIGHT, Y = 0, 1, 2

# Shape and sparsity of matrices at the edges of the form.
ODD_MATRICES = {
    "empty rows": ((600, 40), 0.97),
    "one column": ((5000, 1), 0.97),
    "256 columns": ((40, 256), 0.95),
    "257 columns": ((40, 257), 0.95),
    "65536 columns": ((3, 65536), 0.98),
    "65537 columns": ((3, 65537), 0.98),
    "all zero": ((64, 128), 1.0),
    "one kept": ((64, 128), 1 - 1 / (64 * 128)),
    "full": ((64, 128), 0.0),
}


def matrix_model(weight: NDArray[np.float32], *, rows: int = 1, weight_is_the_input: bool = False) -> Any:
    """FULLY_CONNECTED x (rows, K) with a weight (N, K) to y (rows, N), as a schema object.

    With `weight_is_the_input` the stored matrix is what is multiplied, and x is the weight of the operator.
    """
    x_shape = [rows, weight.shape[1]]
    y_shape = [len(weight), rows] if weight_is_the_input else [rows, len(weight)]
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(b"x", x_shape, 0), _tensor(b"weight", list(weight.shape), 1), _tensor(b"y", y_shape, 0)]
    graph.inputs, graph.outputs = [X], [Y]
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs = [WEIGHT, X, -1] if weight_is_the_input else [X, WEIGHT, -1]
    operator.outputs = [Y]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    stored = schema.BufferT()
    stored.data = np.frombuffer(weight.tobytes(), np.uint8)
    model = schema.ModelT()
    model.version = 3
    model.operatorCodes, model.subgraphs, model.buffers = [code], [graph], [schema.BufferT(), stored]
    model.signatureDefs = [_signature()]
    return model


def matrix_case(weight: NDArray[np.float32], data: bytes, seed: int = 0) -> Case:
    """What the file must compute for a random row."""
    x = np.random.default_rng(seed).standard_normal((1, weight.shape[1])).astype(np.float32)
    expected = (x.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.float32)
    return Case(data, SIGNATURE, {"x": x}, {"y": expected})


def packed(weight: NDArray[np.float32], **options: Any) -> bytes:
    return pack(matrix_model(weight, **options))


def random_matrix(shape: tuple[int, int], sparsity: float, seed: int = 0) -> NDArray[np.float32]:
    """Normal values with exactly so many zeros, rounded down."""
    draw = np.random.default_rng(seed)
    weight = draw.standard_normal(shape).astype(np.float32)
    weight[weight == 0] = 1
    zeros = draw.permutation(weight.size)[: int(weight.size * sparsity)]
    weight.reshape(-1)[zeros] = 0
    return weight


def random_blocks(shape: tuple[int, int], sparsity: float, seed: int = 0) -> NDArray[np.float32]:
    """The same with whole 1x16 blocks of zeros."""
    rows, columns = shape
    kept = random_matrix((rows, columns // 16), sparsity, seed) != 0
    return random_matrix(shape, 0.0, seed + 1) * np.repeat(kept, 16, axis=1)


def lookup_model(weight: NDArray[np.float32], operator: str) -> Any:
    """EMBEDDING_LOOKUP or GATHER of row `x` (1,) from a table to `y` (1, K), as a schema object."""
    model = matrix_model(weight)
    graph = model.subgraphs[0]
    graph.tensors[X].type, graph.tensors[X].shape = schema.TensorType.INT32, [1]
    graph.tensors[Y].shape = [1, weight.shape[1]]
    builtin = getattr(schema.BuiltinOperator, operator)
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = builtin
    (user,) = graph.operators
    if operator == "GATHER":
        user.inputs = [WEIGHT, X]
        user.builtinOptionsType, user.builtinOptions = schema.BuiltinOptions.GatherOptions, schema.GatherOptionsT()
    else:
        user.inputs = [X, WEIGHT]
        user.builtinOptionsType, user.builtinOptions = schema.BuiltinOptions.NONE, None
    return model


def odd_matrix(name: str) -> NDArray[np.float32]:
    shape, sparsity = ODD_MATRICES[name]
    return random_matrix(shape, sparsity)


def checked(data: bytes, signature: str = SIGNATURE) -> TfliteModel:
    return check_tflite(data, "model.tflite", signature)


def decoded(model: TfliteModel, tensor: Tensor) -> NDArray[np.float32]:
    """The plain reference: a stored matrix, element by element."""
    values = model.stored_values(tensor).astype(np.float32)
    if tensor.quantisation is not None:
        (scale,) = tensor.quantisation.scales
        values = scale * values
    if tensor.sparsity is None:
        return values.reshape(tensor.shape)
    dense = np.zeros(tensor.shape, np.float32)
    level = tensor.sparsity.dimensions[1]
    block = tensor.sparsity.dimensions[2].dense_size if tensor.sparsity.block_map else 1
    for row in range(tensor.shape[0]):
        for place in range(int(level.segments[row]), int(level.segments[row + 1])):
            column = block * int(level.indices[place])
            dense[row, column : column + block] = values[block * place : block * (place + 1)]
    return dense


def stored_bytes(model: TfliteModel, tensor: Tensor) -> int:
    """Values, indices and row pointers of one tensor."""
    total = len(model.buffers[tensor.buffer])
    for level in tensor.sparsity.dimensions if tensor.sparsity else ():
        total += level.segments.nbytes + level.indices.nbytes
    return total


def _tensor(name: bytes, shape: list[int], buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, shape, buffer
    tensor.type = schema.TensorType.FLOAT32
    return tensor


def _signature() -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
    signature.inputs, signature.outputs = [_named(b"x", X)], [_named(b"y", Y)]
    return signature


def _named(name: bytes, index: int) -> Any:
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name, index
    return named
