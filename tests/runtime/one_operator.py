"""Model files of one operator each, over all operators of the bundle format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tflite_edit

from capprune_runtime.tflite.file import TENSOR_TYPES
from capprune_runtime.tflite.operators import OPERATORS

schema, flatbuffers = tflite_edit.schema, tflite_edit.flatbuffers
TYPE_CODES = {name: code for code, (name, _) in TENSOR_TYPES.items()}
FIRST_VERSION = {"BROADCAST_TO": 2}  # of those whose first is not 1
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Places:
    """An int32 input of a shape."""

    shape: Shape


@dataclass(frozen=True)
class Case:
    """One operator: float32 inputs by shape, stored int32 or float32 ones by value, options, expected outputs."""

    operator: str
    inputs: tuple[Shape | Places | np.ndarray[Any, Any], ...]
    outputs: tuple[Shape, ...]
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int32)


def one_operator_file(case: Case, outputs: tuple[Shape, ...] | None = None, dtype: str | None = None) -> bytes:
    rule = OPERATORS[case.operator]
    model, graph, code, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = (
        rule.code,
        min(rule.code, 127),
        FIRST_VERSION.get(rule.name, 1),
    )
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    graph.tensors, graph.operators = [], [operator]
    computed = [(shape, dtype or case.dtype) for shape in outputs or case.outputs]
    given = [(given_shape(value), given_type(value)) for value in case.inputs]
    for value, (shape, kind) in zip((*case.inputs, *[None] * len(computed)), (*given, *computed), strict=True):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name = f"t{len(graph.tensors)}".encode()
        if isinstance(value, np.ndarray):
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        tensor.type, tensor.buffer, tensor.shape = TYPE_CODES[kind], len(model.buffers), list(shape)
        graph.tensors.append(tensor)
        model.buffers.append(buffer)
    operator.inputs = list(range(len(case.inputs)))
    operator.outputs = list(range(len(case.inputs), len(graph.tensors)))
    if rule.options_type:
        names = {number: name for name, number in vars(schema.BuiltinOptions).items() if not name.startswith("_")}
        operator.builtinOptionsType = rule.options_type
        operator.builtinOptions = getattr(schema, names[rule.options_type] + "T")()
        vars(operator.builtinOptions).update(case.options)
    graph.inputs = [n for n, value in enumerate(case.inputs) if not isinstance(value, np.ndarray)]
    graph.outputs = operator.outputs
    signature = schema.SignatureDefT()
    signature.signatureKey = b"run"
    signature.inputs, signature.outputs = entries(graph.inputs), entries(graph.outputs)
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def given_shape(value: Shape | Places | np.ndarray[Any, Any]) -> Shape:
    return value if isinstance(value, tuple) else value.shape


def given_type(value: Shape | Places | np.ndarray[Any, Any]) -> str:
    if isinstance(value, np.ndarray):
        return str(value.dtype)
    return "int32" if isinstance(value, Places) else "float32"


def entries(indices: list[int]) -> list[Any]:
    maps = [schema.TensorMapT() for _ in indices]
    for entry, index in zip(maps, indices, strict=True):
        entry.name, entry.tensorIndex = f"t{index}".encode(), index
    return maps


def weights(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


SAME, VALID = 0, 1
CONV = {"strideW": 2, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 2}
SLICED = (ints(0, 1, 5), ints(2, 4, 9), ints(1, 2, 1))
CASES = [
    Case("ADD", ((2, 1, 4), (3, 1)), ((2, 3, 4),)),
    Case("MUL", ((4,), (2, 3, 4)), ((2, 3, 4),)),
    Case("MAXIMUM", ((2, 3), weights(2, 3)), ((2, 3),)),
    Case("MINIMUM", ((2, 3), weights(1, 3)), ((2, 3),)),
    Case("SUB", ((2, 3), (2, 3)), ((2, 3),)),
    Case("DIV", ((2, 3), weights(2, 3)), ((2, 3),)),
    Case("SQUARED_DIFFERENCE", ((1, 2, 4), (1, 2, 1)), ((1, 2, 4),)),
    Case("SQRT", ((2, 3),), ((2, 3),)),
    Case("RSQRT", ((2, 3),), ((2, 3),)),
    Case("LOG", ((2, 3),), ((2, 3),)),
    Case("GELU", ((2, 3),), ((2, 3),), {"approximate": False}),
    Case("GELU", ((2, 3),), ((2, 3),), {"approximate": True}),
    Case("TANH", ((2, 3),), ((2, 3),)),
    Case("LOGISTIC", ((2, 3),), ((2, 3),)),
    Case("RELU", ((2, 3),), ((2, 3),)),
    Case("RELU6", ((2, 3),), ((2, 3),)),
    Case("SOFTMAX", ((2, 3),), ((2, 3),), {"beta": 1.0}),
    Case("RESHAPE", ((2, 3, 4), ints(4, -1)), ((4, 6),)),
    Case("TRANSPOSE", ((2, 3, 4), ints(2, 0, 1)), ((4, 2, 3),)),
    Case("EXPAND_DIMS", ((2, 3), ints(-1)), ((2, 3, 1),)),
    Case("MEAN", ((2, 3, 4), ints(0, -1)), ((3,),)),
    Case("SUM", ((2, 3, 4), ints(1)), ((2, 1, 4),), {"keepDims": True}),
    Case("SLICE", ((2, 5, 9), ints(0, 2, 4), ints(1, 3, -1)), ((1, 3, 5),)),
    Case("STRIDED_SLICE", ((3, 5, 9), *SLICED), ((2, 2, 4),)),
    Case("STRIDED_SLICE", ((3, 5, 9), *SLICED), ((3, 4),), {"beginMask": 1, "endMask": 1, "shrinkAxisMask": 2}),
    Case("STRIDED_SLICE", ((3, 5, 9), ints(-2, 0, -4), ints(3, 99, -1), ints(1, 1, 1)), ((2, 5, 3),)),
    Case("PAD", ((2, 3), np.array([[0, 1], [2, 0]], np.int32)), ((3, 5),)),
    Case("CONCATENATION", ((2, 3), (2, 4), (2, 1)), ((2, 8),), {"axis": -1}),
    Case("PACK", ((2, 3), (2, 3)), ((2, 2, 3),), {"valuesCount": 2, "axis": 1}),
    Case("UNPACK", ((2, 3),), ((2,), (2,), (2,)), {"num": 3, "axis": 1}),
    Case("SPLIT", (ints(1), (2, 6)), ((2, 2), (2, 2), (2, 2)), {"numSplits": 3}),
    Case("GATHER", ((4, 5, 6), ints(1, 3, 0)), ((4, 3, 6),), {"axis": 1}),
    Case("EMBEDDING_LOOKUP", (Places((1,)), weights(9, 4)), ((1, 4),)),
    Case("BROADCAST_TO", ((1, 3), ints(2, 4, 3)), ((2, 4, 3),)),
    Case("BATCH_MATMUL", ((2, 3, 4), (2, 4, 5)), ((2, 3, 5),)),
    Case("BATCH_MATMUL", ((4, 1, 3), (4, 3, 5)), ((4, 1, 5),)),
    Case("BATCH_MATMUL", ((9, 1, 6), weights(9, 6, 8)), ((9, 1, 8),)),
    Case("BATCH_MATMUL", ((2, 4, 3), (2, 5, 4)), ((2, 3, 5),), {"adjX": True, "adjY": True}),
    Case("FULLY_CONNECTED", ((2, 3, 4), weights(5, 4), weights(5)), ((6, 5),)),
    Case("FULLY_CONNECTED", ((2, 3, 4), weights(5, 4), weights(5)), ((2, 3, 5),), {"keepNumDims": True}),
    Case("CONV_2D", ((1, 7, 9, 3), weights(5, 3, 2, 3), weights(5)), ((1, 7, 5, 5),), {**CONV, "padding": SAME}),
    Case("CONV_2D", ((1, 7, 9, 3), weights(5, 3, 2, 3), weights(5)), ((1, 3, 4, 5),), {**CONV, "padding": VALID}),
    Case("DEPTHWISE_CONV_2D", ((1, 8, 8, 3), weights(1, 3, 3, 6), weights(6)), ((1, 3, 3, 6),),
         {"padding": VALID, "strideW": 2, "strideH": 2, "depthMultiplier": 2}),
    Case("AVERAGE_POOL_2D", ((1, 7, 7, 2),), ((1, 4, 4, 2),),
         {"padding": SAME, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 3}),
    Case("MAX_POOL_2D", ((1, 7, 7, 2),), ((1, 4, 4, 2),),
         {"padding": SAME, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 3}),
    Case("MAX_POOL_2D", ((1, 6, 6, 2),), ((1, 2, 2, 2),),
         {"padding": VALID, "strideW": 2, "strideH": 2, "filterWidth": 3, "filterHeight": 3}),
    Case("CAST", (Places((2, 3)),), ((2, 3),), {"inDataType": 2, "outDataType": 0}),
]  # fmt: skip

# Operands that do not go together.
MISFITS = [
    Case("ADD", ((2, 3), (2, 4)), ((2, 3),)),
    Case("DIV", ((2, 3), (2, 4)), ((2, 3),)),
    Case("SQUARED_DIFFERENCE", ((2, 3), (3, 3)), ((2, 3),)),
    Case("SQUARED_DIFFERENCE", ((2, 3), (2,)), ((2, 3),)),
    Case("RESHAPE", ((2, 3), ints(-1, -1)), ((6,),)),
    Case("RESHAPE", ((2, 3), ints(0, 6)), ((6,),)),
    Case("RESHAPE", ((2, 3), ints(-2, -3)), ((6,),)),
    Case("TRANSPOSE", ((2, 3), ints(0, 0)), ((2, 2),)),
    Case("TRANSPOSE", ((2, 3), ints(0, 2)), ((2, 3),)),
    Case("TRANSPOSE", ((2, 3), ints(0)), ((2,),)),
    Case("EXPAND_DIMS", ((2, 3), ints(4)), ((2, 3, 1),)),
    Case("MEAN", ((2, 3), ints(2)), ((2,),)),
    Case("SLICE", ((4, 4), ints(0, -1), ints(1, 1)), ((1, 1),)),
    Case("SLICE", ((4, 4), ints(0, 3), ints(1, 2)), ((1, 2),)),
    Case("SLICE", ((4, 4), ints(0, 0), ints(1, -2)), ((1, 1),)),
    Case("STRIDED_SLICE", ((4,), ints(0), ints(4), ints(0)), ((4,),)),
    Case("STRIDED_SLICE", ((4,), ints(3), ints(0), ints(-1)), ((3,),)),
    Case("STRIDED_SLICE", ((4,), ints(4), ints(9), ints(1)), ((1,),)),
    Case("STRIDED_SLICE", ((4, 2), ints(4, 0), ints(5, 2), ints(1, 1)), ((2,),), {"shrinkAxisMask": 1}),
    Case("PAD", ((2, 3), np.array([[0, -1], [0, 0]], np.int32)), ((1, 3),)),
    Case("PAD", ((2, 3), np.array([[0, 1 << 30], [0, 0]], np.int32)), ((2, 3),)),
    Case("PAD", ((2, 3), np.array([[0, 0]], np.int32)), ((2, 3),)),
    Case("CONCATENATION", ((2, 3), (3, 3)), ((2, 6),), {"axis": 1}),
    Case("CONCATENATION", ((2, 3), (2,)), ((2, 4),), {"axis": 1}),
    Case("PACK", ((2, 3), (2, 4)), ((2, 2, 3),), {"valuesCount": 2}),
    Case("PACK", ((2, 3), (2, 3)), ((2, 2, 3),), {"valuesCount": 3}),
    Case("UNPACK", ((2, 3),), ((3,), (3,), (3,)), {"num": 3, "axis": 0}),
    Case("SPLIT", (ints(1), (2, 5)), ((2, 2), (2, 2)), {"numSplits": 2}),
    Case("GATHER", ((4, 5), ints(0)), ((4, 1),), {"axis": 2}),
    Case("BROADCAST_TO", ((2, 3), ints(1 << 30, 3)), ((2, 3),)),
    Case("BROADCAST_TO", ((2, 3), ints(3)), ((3,),)),
    Case("BATCH_MATMUL", ((2, 3), (4, 5)), ((2, 5),)),
    Case("FULLY_CONNECTED", ((2, 4), weights(5, 3), weights(5)), ((2, 5),)),
    Case("FULLY_CONNECTED", ((2, 4), weights(5, 4), weights(4)), ((2, 5),)),
    Case("CONV_2D", ((1, 7, 9, 4), weights(5, 3, 2, 3), weights(5)), ((1, 7, 5, 5),), CONV),
    Case("CONV_2D", ((1, 2, 9, 3), weights(5, 3, 2, 3), weights(5)), ((1, 1, 4, 5),), {**CONV, "padding": VALID}),
    Case("DEPTHWISE_CONV_2D", ((1, 8, 8, 3), weights(1, 3, 3, 6), weights(6)), ((1, 8, 8, 6),),
         {"strideW": 1, "strideH": 1, "depthMultiplier": 1}),
    Case("EMBEDDING_LOOKUP", ((2,), weights(5, 4)), ((2, 4),)),
    Case("EMBEDDING_LOOKUP", (Places((1, 1)), weights(5, 4)), ((1, 4),)),
    Case("EMBEDDING_LOOKUP", (Places((1,)), weights(5)), ((1,),)),
]  # fmt: skip

# Operators that compute float32 only, on whole numbers: a DIV of those ends the process where it divides by 0.
WRONG_TYPES = [
    *(Case(name, (Places((2, 3)),), ((2, 3),), dtype="int32") for name in ("GELU", "LOG", "RSQRT", "SQRT")),
    *(Case(name, (Places((2, 3)), Places((2, 3))), ((2, 3),), dtype="int32") for name in ("DIV", "SQUARED_DIFFERENCE")),
]
