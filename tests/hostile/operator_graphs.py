"""Random files of one operator each: every operator in every form that its schema allows, most of which exporters never write.

A graph is given by its seed and number alone. About one graph in three has a form that some exporter of ours writes, in random
sizes; the others are there to be refused. What the verifier accepts must run in every interpreter and compute what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import one_operator
import tflite_edit as edit
from numpy.typing import NDArray
from subjects import INT8_SCALE

from capprune_runtime.errors import BadModelFile
from capprune_runtime.tflite.file import read_tflite
from capprune_runtime.tflite.operators import OPERATORS
from capprune_runtime.tflite.shapes import DoesNotFit, infer_outputs

schema = edit.schema
Shape = tuple[int, ...]
Generator = np.random.Generator

SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33)
# The versions that the converters of our exporters write, where they are not 1.
USUAL_VERSIONS = {
    "BROADCAST_TO": (2,),
    "DEQUANTIZE": (1, 2),
    "EMBEDDING_LOOKUP": (1, 2),
    "FULLY_CONNECTED": (1, 3, 5, 8),
    "GATHER": (1, 2),
}


@dataclass(frozen=True, eq=False)
class Operand:
    """One input: stored where it has values, else an input of the graph; sparse where it has a block."""

    shape: Shape
    dtype: str = "float32"
    values: NDArray[Any] | None = None
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    axis: int = 0
    block: int = 0


@dataclass(frozen=True, eq=False)
class Graph:
    """One operator; an input that is left out is None."""

    operator: str
    inputs: tuple[Operand | None, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    scale: tuple[float, int] = (0.02, 3)  # and zero point of int8 outputs
    cast_to: str = ""
    outputs: int = 1


def random_graph(seed: int, number: int) -> Graph:
    """The graph of a seed and a number, always the same."""
    g = np.random.default_rng([seed, number])
    name = sorted(MAKERS)[number % len(MAKERS)]
    graph = MAKERS[name](g, name)
    rule = OPERATORS[name]
    usual = USUAL_VERSIONS.get(name, (1,))
    version = int(g.integers(rule.versions[0], rule.versions[1] + 1)) if chance(g, 0.2) else int(g.choice(usual))
    if graph.version == 1:
        graph = replace(graph, version=version)
    return graph


def graph_file(graph: Graph) -> bytes:
    """The graph as a .tflite with the signature `run`; its outputs are declared as they follow from its inputs."""
    draft = _pack(graph, [((1,), "float32")] * graph.outputs)
    try:
        model = read_tflite(draft, "draft")
        inferred = infer_outputs(model, model.operators[0])
    except (BadModelFile, DoesNotFit, IndexError):
        return draft
    declared = [(shape, graph.cast_to or dtype) for shape, dtype in inferred]
    return _pack(graph, declared)


def _pack(graph: Graph, outputs: list[tuple[Shape, str]]) -> bytes:
    rule = OPERATORS[graph.operator]
    model, sub, code, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = rule.code, min(rule.code, 127), graph.version
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [sub], [schema.BufferT()]
    sub.tensors, sub.operators, sub.inputs, operator.inputs = [], [operator], [], []
    for operand in graph.inputs:
        operator.inputs.append(-1 if operand is None else _add_operand(model, sub, operand))
    operator.outputs = [
        _add_operand(
            model, sub, Operand(shape, dtype, None, graph.scale[:1] if dtype == "int8" else (), graph.scale[1])
        )
        for shape, dtype in outputs
    ]
    sub.inputs, sub.outputs = sub.inputs[: len(sub.inputs) - len(outputs)], operator.outputs
    if rule.options_type:
        names = {number: name for name, number in vars(schema.BuiltinOptions).items() if not name.startswith("_")}
        operator.builtinOptionsType = rule.options_type
        operator.builtinOptions = getattr(schema, names[rule.options_type] + "T")()
        vars(operator.builtinOptions).update(graph.options)
    signature = schema.SignatureDefT()
    signature.signatureKey = b"run"
    signature.inputs, signature.outputs = one_operator.entries(sub.inputs), one_operator.entries(sub.outputs)
    model.signatureDefs = [signature]
    builder = edit.flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _add_operand(model: Any, sub: Any, operand: Operand) -> int:
    tensor, buffer = schema.TensorT(), schema.BufferT()
    index = len(sub.tensors)
    tensor.name, tensor.type = f"t{index}".encode(), one_operator.TYPE_CODES[operand.dtype]
    tensor.buffer, tensor.shape = len(model.buffers), list(operand.shape)
    model.buffers.append(buffer)
    sub.tensors.append(tensor)
    if operand.scales:
        edit.set_scales(tensor, list(operand.scales), [operand.zero_point] * len(operand.scales), operand.axis)
    if operand.values is None:
        sub.inputs.append(index)
    elif operand.block:
        edit.store_sparse(model, tensor, operand.values, operand.block)
    else:
        edit.store(model, tensor, operand.values)
    return index


# --- parts ---------------------------------------------------------------------------------------------------------------


def chance(g: Generator, share: float) -> bool:
    return bool(g.random() < share)


def pick(g: Generator, *choices: Any) -> Any:
    return choices[int(g.integers(len(choices)))]


def shape(g: Generator, low: int = 1, high: int = 4) -> Shape:
    rank = int(g.integers(low, high + 1))
    return tuple(int(g.choice(SIZES[: len(SIZES) - 2 * max(0, rank - 2)])) for _ in range(rank))


def floats(g: Generator, of: Shape, stored: bool) -> Operand:
    scale = pick(g, 0.1, 1, 1, 1, 30)
    return Operand(of, "float32", (g.normal(size=of) * scale).astype(np.float32) if stored else None)


def quantised(
    g: Generator, of: Shape, stored: bool = False, *, symmetric: bool = False, axis: int | None = None
) -> Operand:
    """int8 of one scale, or of one for each index of an axis."""
    count = 1 if axis is None else of[axis]
    scales = tuple(float(x) for x in np.exp(g.uniform(np.log(0.003), np.log(0.05), count)))
    values = g.integers(-127, 128, of).astype(np.int8) if stored else None
    return Operand(of, "int8", values, scales, 0 if symmetric else int(g.integers(-128, 128)), axis or 0)


def numbers(*values: int) -> Operand:
    return Operand((len(values),), "int32", np.array(values, np.int32))


def any_type(g: Generator, of: Shape, stored: bool = False) -> Operand:
    """float32 or int8 mostly; else int32, int64 or float16."""
    dtype = pick(g, *["float32"] * 6, *["int8"] * 3, "int32", "int64", "float16")
    if dtype == "float32":
        return floats(g, of, stored)
    if dtype == "int8":
        return quantised(g, of, stored)
    limit = pick(g, 10, 1 << 31)
    values = (g.normal(size=of) * 5).astype(np.float16) if dtype == "float16" else g.integers(-limit, limit, of)
    return Operand(of, dtype, values.astype(dtype) if stored else None)


def activation(g: Generator) -> dict[str, int]:
    return {"fusedActivationFunction": pick(g, 0, 0, 1, 3, 2)}


# --- operators -----------------------------------------------------------------------------------------------------------


def elementwise(g: Generator, name: str) -> Graph:
    out = shape(g, 0)
    shapes = [out, out]
    if chance(g, 0.5):
        cut = out[int(g.integers(0, len(out) + 1)) :]
        shapes[1] = tuple(1 if chance(g, 0.3) else size for size in cut)
    if chance(g, 0.15):
        shapes[0] = tuple(1 if chance(g, 0.3) else size for size in out)
    first = any_type(g, shapes[0], chance(g, 0.15))
    second = floats(g, shapes[1], chance(g, 0.4))
    if first.dtype == "int8":
        second = quantised(g, shapes[1], second.values is not None)
        if name in ("MAXIMUM", "MINIMUM"):
            second = replace(second, scales=first.scales, zero_point=first.zero_point)
    elif first.dtype != "float32":
        values = None if second.values is None else g.integers(-9, 10, shapes[1]).astype(first.dtype)
        second = Operand(shapes[1], first.dtype, values)
    inputs = (second, first) if chance(g, 0.4) else (first, second)
    scale = (first.scales[0], first.zero_point) if first.scales and name in ("MAXIMUM", "MINIMUM") else (0.05, -4)
    options = {} if name in ("MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE") else activation(g)
    return Graph(name, inputs, options, scale=scale)


def unary(g: Generator, name: str) -> Graph:
    source = any_type(g, shape(g, 0 if chance(g, 0.1) else 1), chance(g, 0.1))
    options: dict[str, Any] = {}
    if name == "SOFTMAX":
        options = {"beta": 1.0}
    if name == "GELU":
        options = {"approximate": chance(g, 0.5)}
    return Graph(name, (source,), options, scale=INT8_SCALE.get(name, (0.02, -3)))


def dequantise(g: Generator, name: str) -> Graph:
    if chance(g, 0.4):
        return unary(g, name)
    return Graph(name, (quantised(g, shape(g)),))


def reduce(g: Generator, name: str) -> Graph:
    source = any_type(g, shape(g))
    rank = len(source.shape)
    axes = g.permutation(rank)[: int(g.integers(1, rank + 1))] - (rank if chance(g, 0.3) else 0)
    operand = numbers(*map(int, axes))
    if len(axes) == 1 and chance(g, 0.2):
        operand = replace(operand, shape=())
    return Graph(name, (source, operand), {"keepDims": chance(g, 0.5)}, scale=(0.03, 5))


def kept_scale(source: Operand) -> tuple[float, int]:
    return (source.scales[0], source.zero_point) if source.scales else (0.02, 3)


def moved(make: Callable[[Generator, Operand], tuple[tuple[Operand, ...], dict[str, Any]]]) -> Callable[..., Graph]:
    def build(g: Generator, name: str) -> Graph:
        source = any_type(g, shape(g), chance(g, 0.05))
        inputs, options = make(g, source)
        return Graph(name, inputs, options, scale=kept_scale(source))

    return build


def reshape(g: Generator, source: Operand) -> tuple[tuple[Operand, ...], dict[str, Any]]:
    size, target = int(np.prod(source.shape)), []
    for factor in (2, 3, 4, 5, 7, 8):
        if size % factor == 0 and len(target) < 3 and chance(g, 0.6):
            target.append(factor)
            size //= factor
    target.append(-1 if chance(g, 0.2) else size)
    return (source, numbers(*map(int, g.permutation(target)))), {}


def transpose(g: Generator, source: Operand) -> tuple[tuple[Operand, ...], dict[str, Any]]:
    return (source, numbers(*map(int, g.permutation(len(source.shape))))), {}


def expand_dims(g: Generator, source: Operand) -> tuple[tuple[Operand, ...], dict[str, Any]]:
    rank = len(source.shape)
    return (source, numbers(int(g.integers(-rank - 1, rank + 1)))), {}


def slice_(g: Generator, source: Operand) -> tuple[tuple[Operand, ...], dict[str, Any]]:
    starts = [int(g.integers(0, size)) for size in source.shape]
    sizes = [
        -1 if chance(g, 0.2) else int(g.integers(1, size - at + 1))
        for size, at in zip(source.shape, starts, strict=True)
    ]
    return (source, numbers(*starts), numbers(*sizes)), {}


def strided_slice(g: Generator, source: Operand) -> tuple[tuple[Operand, ...], dict[str, Any]]:
    starts = [int(g.integers(-size, size)) for size in source.shape]
    ends = [int(g.integers(-size, size + 3)) for size in source.shape]
    strides = [pick(g, 1, 1, 1, 2, 3) for _ in source.shape]
    masks = {"beginMask": int(g.integers(16)), "endMask": pick(g, 15, int(g.integers(16)))}
    masks["shrinkAxisMask"] = int(g.integers(16)) & ~masks["beginMask"] & ~masks["endMask"] if chance(g, 0.5) else 0
    return (source, numbers(*starts), numbers(*ends), numbers(*strides)), masks


def pad(g: Generator, source: Operand) -> tuple[tuple[Operand, ...], dict[str, Any]]:
    paddings = g.integers(0, 4, (len(source.shape), 2)).astype(np.int32)
    return (source, Operand(paddings.shape, "int32", paddings)), {}


def broadcast_to(g: Generator, source: Operand) -> tuple[tuple[Operand, ...], dict[str, Any]]:
    of = tuple(1 if chance(g, 0.4) else size for size in source.shape)[int(g.integers(0, len(source.shape))) :]
    smaller = replace(source, shape=of, values=None)
    return (smaller, numbers(*source.shape)), {}


def unpack(g: Generator, name: str) -> Graph:
    source = any_type(g, shape(g))
    axis = int(g.integers(len(source.shape)))
    count = source.shape[axis]
    given = axis - len(source.shape) if chance(g, 0.3) else axis
    return Graph(name, (source,), {"num": count, "axis": given}, scale=kept_scale(source), outputs=count)


def split(g: Generator, name: str) -> Graph:
    source = any_type(g, shape(g))
    axis = int(g.integers(len(source.shape)))
    count = int(g.choice([n for n in range(1, source.shape[axis] + 1) if source.shape[axis] % n == 0]))
    axis -= len(source.shape) if chance(g, 0.3) else 0
    return Graph(name, (numbers(axis), source), {"numSplits": count}, scale=kept_scale(source), outputs=count)


def joined(g: Generator, name: str) -> Graph:
    first = any_type(g, shape(g))
    rank = len(first.shape)
    axis = int(g.integers(rank if name == "CONCATENATION" else rank + 1))
    inputs = [first]
    for _ in range(int(g.integers(0, 5))):
        of = list(first.shape)
        if name == "CONCATENATION":
            of[axis] = int(g.choice(SIZES))
        values = g.normal(size=of).astype(np.float32) if first.dtype == "float32" and chance(g, 0.15) else None
        inputs.append(replace(first, shape=tuple(of), values=values))
    axis -= (rank if name == "CONCATENATION" else rank + 1) if chance(g, 0.3) else 0
    options = {"axis": axis} | ({"valuesCount": len(inputs)} if name == "PACK" else {})
    return Graph(name, tuple(inputs), options, scale=kept_scale(first))


def gather(g: Generator, name: str) -> Graph:
    source = any_type(g, shape(g), chance(g, 0.4))
    axis = int(g.integers(len(source.shape))) if chance(g, 0.3) else 0
    places = Operand(shape(g, 0, 2) if chance(g, 0.3) else (int(g.choice(SIZES)),), "int32")
    if chance(g, 0.2):
        places = replace(places, values=g.integers(0, source.shape[axis], places.shape).astype(np.int32))
    return Graph(name, (source, places), {"axis": axis}, scale=kept_scale(source))


def embedding_lookup(g: Generator, name: str) -> Graph:
    of = shape(g, 2, pick(g, 2, 2, 3))
    table = floats(g, of, chance(g, 0.8))
    if chance(g, 0.4):
        table = quantised(g, of, chance(g, 0.8), symmetric=True)
    return Graph(name, (Operand((pick(g, 1, 1, 3),), "int32"), table), version=2 if table.dtype == "int8" else 1)


def batch_matmul(g: Generator, name: str) -> Graph:
    outer = shape(g, 0, 2)
    rows, inner, columns = (int(g.choice(SIZES)) for _ in range(3))
    adj = {"adjX": chance(g, 0.3), "adjY": chance(g, 0.3)}
    left, right = (inner, rows) if adj["adjX"] else (rows, inner), (columns, inner) if adj["adjY"] else (inner, columns)
    other = outer[int(g.integers(0, len(outer) + 1)) :] if chance(g, 0.2) else outer
    make = quantised if chance(g, 0.1) else floats
    first, second = make(g, (*outer, *left), chance(g, 0.05)), make(g, (*other, *right), chance(g, 0.2))
    return Graph(name, (first, second), adj)


def bias_of(g: Generator, source: Operand, weight: Operand, channels: int) -> Operand | None:
    if chance(g, 0.2):
        return None
    if source.dtype == "float32":
        return floats(g, (channels,), chance(g, 0.9))
    scales = tuple(float(np.float32(source.scales[0]) * np.float32(scale)) for scale in weight.scales)
    return Operand((channels,), "int32", g.integers(-2000, 2000, channels).astype(np.int32), scales)


def weighted(g: Generator, of: Shape, weight: Shape, axis: int) -> tuple[Operand, Operand]:
    """Input and weight: float32, hybrid, or int8 throughout."""
    form = pick(g, "float32", "float32", "hybrid", "int8", "int8")
    if form == "float32":
        return floats(g, of, stored=False), floats(g, weight, chance(g, 0.85))
    source = floats(g, of, stored=False) if form == "hybrid" else quantised(g, of)
    return source, quantised(g, weight, chance(g, 0.95), symmetric=True, axis=axis if chance(g, 0.6) else None)


def fully_connected(g: Generator, name: str) -> Graph:
    rows, inner = int(g.choice(SIZES)), int(g.choice((*SIZES, 32, 64)))
    source, weight = weighted(g, (*shape(g, pick(g, 1, 1, 2, 3), 3)[:3], inner), (rows, inner), 0)
    version = {"float32": 5, "int8": 3}[weight.dtype]
    if source.dtype == "float32" and chance(g, 0.4):
        source, weight, version = sparse_weight(g, source, rows)
    bias = bias_of(g, source, weight, rows)
    inputs = (source, weight, bias) if bias is not None or chance(g, 0.9) else (source, weight)
    options = {
        "quantizedBiasType": pick(g, *[0] * 9, 2),
        "keepNumDims": chance(g, 0.5),
        "asymmetricQuantizeInputs": chance(g, 0.1),
        **activation(g),
    }
    return Graph(name, inputs, options, version, scale=(float(g.uniform(0.05, 0.5)), int(g.integers(-128, 128))))


def sparse_weight(g: Generator, source: Operand, rows: int) -> tuple[Operand, Operand, int]:
    block = pick(g, 1, 4, 16)
    inner = source.shape[-1] if block == 1 else block * int(g.integers(1, 6))
    dense = edit.thinned(g.normal(size=(max(rows, 2), inner)).astype(np.float32), block, int(g.integers(1 << 30)))[
        :rows
    ]
    if not dense.any():
        dense[0, :block] = 1
    weight = Operand(dense.shape, "float32", dense, block=block)
    if block == 16 or (block == 1 and chance(g, 0.1)):
        scale = float(np.abs(dense).max() / 127)
        weight = Operand(dense.shape, "int8", np.round(dense / scale).astype(np.int8), (scale,), block=block)
    return replace(source, shape=(*source.shape[:-1], inner)), weight, 8


def densify(g: Generator, name: str) -> Graph:
    of = shape(g, 2, 2)
    _, weight, _ = sparse_weight(g, floats(g, of, stored=False), of[0])
    if weight.block != 1:
        weight = replace(weight, block=1)
    return Graph(name, (weight,), scale=((weight.scales or (0.02,))[0], 0))


def window(g: Generator, size: int) -> tuple[int, int, int]:
    """(kernel, stride, dilation) along one axis."""
    kernel = int(g.integers(1, min(size, 5) + 1))
    return kernel, pick(g, 1, 1, 2, 3), pick(g, 1, 1, 1, 2) if (kernel - 1) * 2 < size else 1


def conv(g: Generator, name: str) -> Graph:
    batch, rows, columns, channels = pick(g, 1, 1, 1, 2), *shape(g, 2, 2), int(g.choice(SIZES[:-2]))
    (height, down, tall), (width, across, wide) = window(g, rows), window(g, columns)
    if chance(g, 0.5):
        across, wide, tall = down, 1, 1
    if name == "CONV_2D":
        many = int(g.choice(SIZES))
        of, axis, extra = (many, height, width, channels), 0, {}
    else:
        multiplier = pick(g, 1, 1, 1, 2, 4)
        many = channels * multiplier
        of, axis, extra = (1, height, width, many), 3, {"depthMultiplier": multiplier}
    source, weight = weighted(g, (batch, rows, columns, channels), of, axis)
    bias = bias_of(g, source, weight, many)
    inputs = (source, weight) if bias is None else (source, weight, bias)
    options = {"padding": pick(g, 0, 1), "strideH": down, "strideW": across, "dilationHFactor": tall,
               "dilationWFactor": wide, **extra, **activation(g)}  # fmt: skip
    return Graph(name, inputs, options, scale=(float(g.uniform(0.05, 0.5)), int(g.integers(-128, 128))))


def pool(g: Generator, name: str) -> Graph:
    source = any_type(g, (pick(g, 1, 1, 2), *shape(g, 2, 2), int(g.choice(SIZES))))
    (height, down, _), (width, across, _) = window(g, source.shape[1]), window(g, source.shape[2])
    options = {"padding": pick(g, 0, 1), "strideH": down, "strideW": across, "filterHeight": height, "filterWidth": width,
               **activation(g)}  # fmt: skip
    return Graph(name, (source,), options, scale=kept_scale(source))


def cast(g: Generator, name: str) -> Graph:
    codes = {"float32": 0, "int32": 2, "int64": 4}
    source, to = any_type(g, shape(g)), pick(g, *codes)
    if chance(g, 0.4):
        source, to = Operand(source.shape, "int32"), "float32"
    return Graph(name, (source,), {"inDataType": codes.get(source.dtype, 0), "outDataType": codes[to]}, cast_to=to)


Maker = Callable[[Generator, str], Graph]
MAKERS: Mapping[str, Maker] = {
    **dict.fromkeys(("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB"), elementwise),
    **dict.fromkeys(
        ("GELU", "LOG", "LOGISTIC", "QUANTIZE", "RELU", "RELU6", "RSQRT", "SOFTMAX", "SQRT", "TANH"), unary
    ),
    **dict.fromkeys(("MEAN", "SUM"), reduce),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), pool),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), conv),
    **dict.fromkeys(("CONCATENATION", "PACK"), joined),
    "BATCH_MATMUL": batch_matmul,
    "BROADCAST_TO": moved(broadcast_to),
    "CAST": cast,
    "DENSIFY": densify,
    "DEQUANTIZE": dequantise,
    "EMBEDDING_LOOKUP": embedding_lookup,
    "EXPAND_DIMS": moved(expand_dims),
    "FULLY_CONNECTED": fully_connected,
    "GATHER": gather,
    "PAD": moved(pad),
    "RESHAPE": moved(reshape),
    "SLICE": moved(slice_),
    "SPLIT": split,
    "STRIDED_SLICE": moved(strided_slice),
    "TRANSPOSE": moved(transpose),
    "UNPACK": unpack,
}
