"""Mutations of a .tflite: of what it means, of any field of its schema, and of its raw bytes.

Most files that a blind mutation gives are refused for their form. So a good part of the mutations here keep the form and
change the meaning (another column, another scale, another operand), which is what an interpreter must then compute.
"""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from subjects import edit

from capprune_runtime.tflite.file import read_tflite
from capprune_runtime.tflite.operators import OPERATORS

Random = np.random.Generator
schema = edit.schema

WHOLE = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    24,
    32,
    -1,
    -2,
    127,
    -128,
    255,
    256,
    65_535,
    65_536,
    1 << 24,
    (1 << 31) - 1,
    -(1 << 31),
)
REAL = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, 1e-38, 1e-40, -1e-40, 1e20, 3e38, -3e38, np.inf, -np.inf, np.nan)
WORDS = (0, 1, 2, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65_536, 1_000_000)
SMALL_BUFFER_BYTES = 16  # shape operands; of larger buffers the meaning is mutated, not single bytes
_TYPES = {0: np.float32, 2: np.int32, 4: np.int64, 9: np.int8}
_OPTIONS = {number: name for name, number in vars(schema.BuiltinOptions).items() if not name.startswith("_")}


def mutated_model(data: bytes, generator: Random) -> bytes:
    """A file that is one or a few mutations away from a sound one."""
    kind = generator.random()
    if kind < 0.3:
        return _mutated_bytes(data, generator)
    tree = pickle.loads(_pickled_tree(data))  # several times as fast as a deep copy
    mutations = MEANINGS if kind < 0.7 else (_any_field,)
    for _ in range(int(generator.integers(1, 4))):
        with np.errstate(all="ignore"), contextlib.suppress(ValueError, TypeError, AttributeError, IndexError):
            _pick(mutations, generator)(tree, generator)  # which a tree that is damaged already may not bear
            if not (tree.subgraphs and _graph(tree).operators and _graph(tree).tensors and tree.signatureDefs):
                break
    builder = edit.flatbuffers.Builder(len(data) + (1 << 16))
    try:
        builder.Finish(tree.Pack(builder), b"TFL3")
    except Exception:  # a value that the schema's own writer cannot hold: no file has it
        return _mutated_bytes(data, generator)
    return bytes(builder.Output())


@lru_cache(maxsize=64)
def _pickled_tree(data: bytes) -> bytes:
    return pickle.dumps(schema.ModelT.InitFromPackedBuf(data, 0), protocol=5)


def _pick(items: Any, generator: Random) -> Any:
    return items[int(generator.integers(len(items)))]


# --- raw bytes ---------------------------------------------------------------------------------------------------------------


def _mutated_bytes(data: bytes, generator: Random) -> bytes:
    content, places = bytearray(data), _places(data)
    for _ in range(int(generator.integers(1, 3))):
        place, kind = int(_pick(places, generator)), generator.integers(5)
        word = place - place % 4
        if kind == 0:
            content[place] = int(generator.integers(256))
        elif kind == 1:
            content[place] = (content[place] + int(_pick((-4, -1, 1, 2, 4), generator))) % 256
        elif kind == 2:
            content[word : word + 4] = int(_pick(WORDS, generator)).to_bytes(4, "little")
        elif kind == 3:
            other = int(_pick(places, generator)) & ~3
            content[word : word + 4] = content[other : other + 4]
        else:
            content[place] ^= 1 << int(generator.integers(8))
    if generator.random() < 0.02:
        return bytes(content[: int(generator.integers(len(content)))])
    return bytes(content)


@lru_cache(maxsize=64)
def _places(data: bytes) -> Any:
    """Every byte but those of large buffers."""
    file = np.frombuffer(data, np.uint8)
    worth = np.ones(len(data) & ~3, bool)
    for buffer in read_tflite(data, "f").buffers:
        if len(buffer) > SMALL_BUFFER_BYTES:
            start = np.frombuffer(buffer, np.uint8).ctypes.data - file.ctypes.data
            worth[start : start + len(buffer)] = False
    return np.flatnonzero(worth)


# --- any field of the schema ---------------------------------------------------------------------------------------------------


def _any_field(tree: Any, generator: Random) -> None:
    by_class: dict[str, list[Any]] = {}
    for found in _objects(tree):
        by_class.setdefault(type(found).__name__, []).append(found)
    objects = _pick(list(by_class.values()), generator)
    chosen = _pick(objects, generator)
    if not (names := list(vars(chosen))):
        return
    name = _pick(names, generator)
    others = [getattr(other, name) for other in objects]
    setattr(chosen, name, _other_value(getattr(chosen, name), others, generator))


def _objects(found: Any) -> Iterator[Any]:
    if isinstance(found, list):
        for item in found:
            yield from _objects(item)
    elif hasattr(found, "Pack"):
        yield found
        for value in vars(found).values():
            yield from _objects(value)


def _other_value(value: Any, others: list[Any], generator: Random) -> Any:
    if generator.random() < 0.25:
        return copy.deepcopy(_pick(others, generator))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | np.integer):
        return int(_pick((*WHOLE, int(value) + 1, int(value) - 1), generator))
    if isinstance(value, float | np.floating):
        return float(_pick((*REAL, value * 2, -value), generator))
    if isinstance(value, bytes):
        return _pick((value + b"x", value[:-1], b"", b"\xff", None), generator)
    if isinstance(value, np.ndarray | list):
        return _other_list(list(value), generator)
    return None


def _other_list(items: list[Any], generator: Random) -> list[Any]:
    items = list(items)
    kind = int(generator.integers(6))
    if not items:
        return [0]
    place = int(generator.integers(len(items)))
    if kind == 0:
        del items[place]
    elif kind == 1:
        items.insert(place, copy.deepcopy(items[place]))
    elif kind == 2:
        items.reverse()
    elif kind == 3:
        other = int(generator.integers(len(items)))
        items[place], items[other] = items[other], items[place]
    elif not hasattr(items[0], "Pack"):
        items[place] = _other_value(items[place], items, generator)
    return items


# --- what the file means -------------------------------------------------------------------------------------------------------


def _graph(tree: Any) -> Any:
    return tree.subgraphs[0]


def _stored_tensors(tree: Any) -> list[Any]:
    return [t for t in _graph(tree).tensors if t.type in _TYPES and tree.buffers[t.buffer].data is not None]


def _values(tree: Any, generator: Random) -> None:
    """A few stored numbers."""
    if not (tensors := _stored_tensors(tree)):
        return
    tensor = _pick(tensors, generator)
    data = np.array(tree.buffers[tensor.buffer].data, np.uint8)
    if not len(data) or len(data) % np.dtype(_TYPES[tensor.type]).itemsize:
        return
    values = data.view(_TYPES[tensor.type])
    for _ in range(int(generator.integers(1, 4))):
        place = int(generator.integers(len(values)))
        if tensor.type == 0:
            values[place] = _pick((*REAL[:10], values[place] * 2, -values[place]), generator)
        else:
            low, high = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
            value = _pick((*WHOLE, int(values[place]) + 1, int(values[place]) - 1), generator)
            values[place] = min(max(value, low), high)
    tree.buffers[tensor.buffer].data = values.view(np.uint8)


def _magnitude(tree: Any, generator: Random) -> None:
    """A whole float tensor larger or smaller."""
    if floats := [t for t in _stored_tensors(tree) if t.type == 0]:
        tensor = _pick(floats, generator)
        factor = np.float32(2.0) ** np.float32(generator.integers(-40, 41))
        values = np.array(tree.buffers[tensor.buffer].data, np.uint8).view(np.float32) * factor
        tree.buffers[tensor.buffer].data = values.view(np.uint8)


def _quantisation(tree: Any, generator: Random) -> None:
    quantised = [t for t in _graph(tree).tensors if t.quantization is not None and t.quantization.scale is not None]
    if not quantised:
        return
    tensor = _pick(quantised, generator)
    parameters = tensor.quantization = copy.deepcopy(tensor.quantization)
    scales, zero_points = np.array(parameters.scale, np.float32), np.array(parameters.zeroPoint, np.int64)
    kind = int(generator.integers(6))
    if not len(scales) or not len(zero_points):
        return
    if kind <= 1:
        scales *= np.float32(2.0) ** np.float32(generator.integers(-30, 31) / (1 if kind else 10))
    elif kind == 2:
        scales[int(generator.integers(len(scales)))] = _pick(REAL, generator)
    elif kind == 3:
        zero_points[int(generator.integers(len(zero_points)))] = _pick((*WHOLE[:12], 5), generator)
    elif kind == 4:
        parameters.quantizedDimension = int(generator.integers(-1, 4))
    else:
        source = _pick(quantised, generator).quantization
        scales, zero_points = source.scale, source.zeroPoint
    parameters.scale, parameters.zeroPoint = scales, zero_points


def _positions(tree: Any, generator: Random) -> None:
    """Columns and row pointers of a sparse tensor that may well be sound."""
    sparse = [t for t in _graph(tree).tensors if t.sparsity is not None and t.sparsity.dimMetadata]
    levels = [level for t in sparse for level in t.sparsity.dimMetadata if level.arrayIndices is not None]
    levels = [level for level in levels if level.arraySegments is not None]
    if not levels:
        return
    level = _pick(levels, generator)
    pointers, columns = np.array(level.arraySegments.values), np.array(level.arrayIndices.values)
    if not len(pointers) or not len(columns):
        return
    kind, place = int(generator.integers(4)), int(generator.integers(len(columns)))
    if kind == 0:
        columns[place] = max(0, int(columns[place]) + int(_pick((-1, 1, 2), generator)))
    elif kind == 1:
        columns[place] = int(generator.integers(40))
    elif kind == 2:
        row = int(generator.integers(len(pointers)))
        pointers[row] = max(0, int(pointers[row]) + int(_pick((-1, 1, 3), generator)))
    else:
        name, values = _pick((("Segments", pointers), ("Indices", columns)), generator)
        kind_of_index = _pick((1, 2, 3), generator)
        if kind_of_index < 3 or values.max() < 256:
            vector = {1: schema.Int32VectorT, 2: schema.Uint16VectorT, 3: schema.Uint8VectorT}[kind_of_index]()
            setattr(level, f"array{name}Type", kind_of_index)
            setattr(level, f"array{name}", vector)
    level.arraySegments.values, level.arrayIndices.values = pointers, columns


def _operand(tree: Any, generator: Random) -> None:
    """An operator reads another tensor, most often one of the same shape."""
    graph = _graph(tree)
    operator = _pick(graph.operators, generator)
    inputs = list(operator.inputs)
    if not inputs:
        return
    place = int(generator.integers(len(inputs)))
    before = graph.tensors[inputs[place]]
    alike = [n for n, t in enumerate(graph.tensors) if list(t.shape) == list(before.shape)]
    choices = alike if generator.random() < 0.8 else range(-1, len(graph.tensors))
    inputs[place] = int(_pick(choices, generator))
    operator.inputs = inputs


def _swap_operands(tree: Any, generator: Random) -> None:
    operator = _pick(_graph(tree).operators, generator)
    inputs = list(operator.inputs)
    generator.shuffle(inputs)
    operator.inputs = inputs


def _another_operator(tree: Any, generator: Random) -> None:
    """Another operator on the same operands, with options of its kind."""
    operator = _pick(_graph(tree).operators, generator)
    alike = [rule for rule in OPERATORS.values() if rule.least_inputs <= len(operator.inputs) <= rule.most_inputs]
    rule = _pick(alike, generator)
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = rule.code, min(rule.code, 127)
    code.version = int(_pick((1, 1, 2, 3, 5, 8), generator))
    tree.operatorCodes.append(code)
    operator.opcodeIndex = len(tree.operatorCodes) - 1
    if rule.options_type != operator.builtinOptionsType:
        operator.builtinOptionsType = rule.options_type
        operator.builtinOptions = getattr(schema, _OPTIONS[rule.options_type] + "T")() if rule.options_type else None
        if hasattr(operator.builtinOptions, "strideW"):
            operator.builtinOptions.strideW = operator.builtinOptions.strideH = 1
            operator.builtinOptions.dilationWFactor = operator.builtinOptions.dilationHFactor = 1
        if rule.name == "SOFTMAX":
            operator.builtinOptions.beta = 1.0


def _option(tree: Any, generator: Random) -> None:
    """An option of an operator, most often within what kernels take."""
    with_options = [op for op in _graph(tree).operators if op.builtinOptions is not None and vars(op.builtinOptions)]
    if not with_options:
        return
    operator = _pick(with_options, generator)
    options = copy.deepcopy(operator.builtinOptions)
    name = _pick(list(vars(options)), generator)
    value = getattr(options, name)
    if isinstance(value, bool):
        setattr(options, name, not value)
    elif isinstance(value, int):
        setattr(options, name, int(generator.integers(-2, 6)))
    else:
        setattr(options, name, _other_value(value, [value], generator))
    operator.builtinOptions = options


def _version(tree: Any, generator: Random) -> None:
    _pick(tree.operatorCodes, generator).version = int(generator.integers(0, 14))


def _order(tree: Any, generator: Random) -> None:
    """An operator is gone, stands twice or elsewhere."""
    graph = _graph(tree)
    operators = list(graph.operators)
    place = int(generator.integers(len(operators)))
    kind = int(generator.integers(3))
    operator = operators[place]
    if kind == 0 and len(operator.inputs) and len(operator.outputs):
        del operators[place]
        for other in operators:
            other.inputs = [operator.inputs[0] if index == operator.outputs[0] else index for index in other.inputs]
    elif kind == 1:
        operators.insert(place, copy.deepcopy(operator))
    else:
        operators.insert(int(generator.integers(len(operators))), operators.pop(place))
    graph.operators = operators


def _names(tree: Any, generator: Random) -> None:
    """Two tensors of the signature change places."""
    signature = tree.signatureDefs[0]
    entries = _pick((signature.inputs, signature.outputs), generator)
    one, other = _pick(entries, generator), _pick(entries, generator)
    one.tensorIndex, other.tensorIndex = other.tensorIndex, one.tensorIndex


def _shape(tree: Any, generator: Random) -> None:
    """A shape of as many elements."""
    tensor = _pick(_graph(tree).tensors, generator)
    shape = list(tensor.shape)
    generator.shuffle(shape)
    if generator.random() < 0.4 and len(shape) > 1:
        first = shape.pop(0)
        shape[0] *= first
    elif generator.random() < 0.3:
        shape.insert(int(generator.integers(len(shape) + 1)), 1)
    tensor.shape = shape


def _shared_buffer(tree: Any, generator: Random) -> None:
    """Two tensors read one buffer."""
    tensors = _graph(tree).tensors
    _pick(tensors, generator).buffer = _pick(tensors, generator).buffer


MEANINGS: tuple[Callable[[Any, Random], None], ...] = (
    _values, _values, _magnitude, _quantisation, _quantisation, _positions, _positions, _operand, _operand, _swap_operands,
    _another_operator, _another_operator, _option, _option, _version, _order, _names, _shape, _shared_buffer,
)  # fmt: skip
