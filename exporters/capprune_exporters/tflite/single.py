"""A .tflite with one matrix product, to measure the speed of a storage form of its weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from capprune_exporters.tflite.sparse import pack

SIGNATURE = "product"
INPUT, WEIGHT, OUTPUT = "x", "weight", "y"


def single_product(weight: npt.NDArray[np.float32]) -> bytes:
    """Return a FULLY_CONNECTED from `x` (1, K) to `y` (1, N) with a dense float32 weight (N, K)."""
    rows, columns = weight.shape
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor(INPUT, [1, columns], 0),
        _tensor(WEIGHT, [rows, columns], 1),
        _tensor(OUTPUT, [1, rows], 0),
    ]
    graph.inputs, graph.outputs = [0], [2]
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1, -1], [2]
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
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE.encode()
    signature.inputs, signature.outputs = [_named(INPUT, 0)], [_named(OUTPUT, 2)]
    model.signatureDefs = [signature]
    return pack(model)


def _tensor(name: str, shape: list[int], buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name.encode(), shape, buffer
    tensor.type = schema.TensorType.FLOAT32
    return tensor


def _named(name: str, index: int) -> Any:
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name.encode(), index
    return named
