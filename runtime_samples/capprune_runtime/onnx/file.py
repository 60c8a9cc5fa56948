"""The content of an .onnx file, as frozen dataclasses. This module reads the structure; `onnx.check` checks it.

Field numbers are those of the ONNX schema. Only the fields that a captioning model needs are supported: no functions,
no training, no metadata, no external or sparse tensors. Attributes hold numbers and small tensors, never graphs, so
that nesting is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import BadModelFile
from capprune_runtime.formats import MAX_MODEL_BYTES, model_kind
from capprune_runtime.onnx.protobuf import BYTES, FIXED32, VARINT, Field, Message, read_message

OPSET = 20
IR_VERSIONS = (8, 10)  # first and last
MAX_NODES = 10_000
MAX_INITIALIZERS = 10_000
MAX_RANK = 6
MAX_DIMENSION = 1 << 24
MAX_TENSOR_BYTES = 256 << 20
MAX_NAMES = 1000  # inputs or outputs of one node

# TensorProto.DataType of the schema; a captioning model does not use the others.
TENSOR_TYPES: dict[int, str] = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64"}

# AttributeProto.AttributeType, and the field that holds the value.
_ATTRIBUTE_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 7: "ints"}

Attribute: TypeAlias = "int | float | str | tuple[int, ...] | Initializer"


@dataclass(frozen=True, eq=False)
class Initializer:
    """A stored tensor; `values` is a read-only view of the file, in the tensor's shape."""

    name: str
    values: NDArray[Any]
    offset: int

    @property
    def dtype(self) -> str:
        """The NumPy name of its type."""
        return self.values.dtype.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape; () for a single number."""
        return self.values.shape


@dataclass(frozen=True)
class Node:
    """One operator, with inputs and outputs by name."""

    index: int
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    offset: int


@dataclass(frozen=True)
class Value:
    """An input or output of the graph; a dimension is a size, or the name of a free dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    offset: int


@dataclass(frozen=True)
class OnnxModel:
    """A whole .onnx file, with nodes in execution order."""

    nodes: tuple[Node, ...]
    initializers: Mapping[str, Initializer]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


_MODEL = {
    1: Field("ir_version", VARINT),
    2: Field("producer_name", BYTES),
    3: Field("producer_version", BYTES),
    7: Field("graph", BYTES),
    8: Field("opset_import", BYTES, repeated=True),
}
_OPSET_IMPORT = {1: Field("domain", BYTES), 2: Field("version", VARINT)}
_GRAPH = {
    1: Field("node", BYTES, repeated=True),
    2: Field("name", BYTES),
    5: Field("initializer", BYTES, repeated=True),
    11: Field("input", BYTES, repeated=True),
    12: Field("output", BYTES, repeated=True),
}
_NODE = {
    1: Field("input", BYTES, repeated=True),
    2: Field("output", BYTES, repeated=True),
    3: Field("name", BYTES),
    4: Field("op_type", BYTES),
    5: Field("attribute", BYTES, repeated=True),
}
_ATTRIBUTE = {
    1: Field("name", BYTES),
    2: Field("f", FIXED32),
    3: Field("i", VARINT),
    4: Field("s", BYTES),
    5: Field("t", BYTES),
    8: Field("ints", VARINT, repeated=True),
    20: Field("type", VARINT),
}
_TENSOR = {
    1: Field("dims", VARINT, repeated=True),
    2: Field("data_type", VARINT),
    8: Field("name", BYTES),
    9: Field("raw_data", BYTES),
}
_VALUE = {1: Field("name", BYTES), 2: Field("type", BYTES)}
_TYPE = {1: Field("tensor_type", BYTES)}
_TENSOR_TYPE = {1: Field("elem_type", VARINT), 2: Field("shape", BYTES)}
_SHAPE = {1: Field("dim", BYTES, repeated=True)}
_DIMENSION = {1: Field("dim_value", VARINT), 2: Field("dim_param", BYTES)}


def read_onnx(data: bytes, where: str) -> OnnxModel:
    """Read an .onnx file.

    Args:
        data: The whole file.
        where: Its name, for messages.

    Raises:
        BadModelFile: The file is not an .onnx, refers to bytes outside itself, or uses an unsupported feature.
    """
    if len(data) > MAX_MODEL_BYTES:
        raise BadModelFile("a model file is too large", where=where, expected=f"at most {MAX_MODEL_BYTES} bytes")
    if model_kind(data) != "onnx":  # interpreters are chosen by the same test
        raise BadModelFile("protobuf: the file is of another kind", where=where, expected="an ONNX model")
    model = read_message(data, where, "model", _MODEL)
    version = model.integer("ir_version")
    if not IR_VERSIONS[0] <= version <= IR_VERSIONS[1]:
        raise model.error("model: the format has another version", "{} to {}".format(*IR_VERSIONS), version)
    model.text("producer_name"), model.text("producer_version")
    opsets = model.messages("opset_import", _OPSET_IMPORT, 1)
    versions = [(opset.text("domain"), opset.integer("version")) for opset in opsets]
    if versions != [("", OPSET)]:
        raise model.error("model: it must use the standard operators only", f"opset {OPSET}", ascii(versions))
    graph = model.message("graph", _GRAPH)
    graph.text("name")
    stored = [_initializer(tensor) for tensor in graph.messages("initializer", _TENSOR, MAX_INITIALIZERS)]
    if len({tensor.name for tensor in stored}) != len(stored):
        raise graph.error("graph: two stored tensors have one name")
    return OnnxModel(
        nodes=tuple(_node(n, node) for n, node in enumerate(graph.messages("node", _NODE, MAX_NODES))),
        initializers={tensor.name: tensor for tensor in stored},
        inputs=tuple(_value(value) for value in graph.messages("input", _VALUE, MAX_NAMES)),
        outputs=tuple(_value(value) for value in graph.messages("output", _VALUE, MAX_NAMES)),
    )


def _node(index: int, message: Message) -> Node:
    message.text("name")
    attributes: dict[str, Attribute] = {}
    for attribute in message.messages("attribute", _ATTRIBUTE, MAX_NAMES):
        name = attribute.text("name")
        if name in attributes:
            raise attribute.error("attribute: it stands twice", found=ascii(name))
        attributes[name] = _attribute(attribute)
    inputs, outputs = message.texts("input"), message.texts("output")
    if max(len(inputs), len(outputs)) > MAX_NAMES:
        raise message.error("operator: too many inputs or outputs", f"at most {MAX_NAMES}")
    return Node(index, message.text("op_type"), inputs, outputs, attributes, message.start)


def _attribute(message: Message) -> Attribute:
    kind = _ATTRIBUTE_FIELDS.get(message.integer("type"))
    others = [name for name in _ATTRIBUTE_FIELDS.values() if name != kind and message.has(name)]
    if kind is None or others:
        raise message.error("attribute: this type is not allowed, or does not fit the value", sorted(_ATTRIBUTE_FIELDS))
    if kind == "ints":
        return message.integers("ints")
    if not message.has(kind):
        raise message.error("attribute: it has no value")
    if kind == "t":
        return _initializer(message.message("t", _TENSOR))
    return message.text("s") if kind == "s" else message.integer("i") if kind == "i" else message.real("f")


def _initializer(message: Message) -> Initializer:
    name, code, shape = message.text("name"), message.integer("data_type"), message.integers("dims")
    if code not in TENSOR_TYPES:
        raise message.error("tensor: this type is not allowed", ", ".join(TENSOR_TYPES.values()), code)
    if len(shape) > MAX_RANK or not all(1 <= size <= MAX_DIMENSION for size in shape):
        expected = f"at most {MAX_RANK} dimensions, 1 to {MAX_DIMENSION}"
        raise message.error("tensor: impossible shape", expected, shape[: MAX_RANK + 1])
    dtype, stored = np.dtype(TENSOR_TYPES[code]), message.bytes_("raw_data")
    size_bytes = prod(shape) * dtype.itemsize  # Python's integers do not overflow
    if size_bytes > MAX_TENSOR_BYTES:
        raise message.error("tensor: too large", f"at most {MAX_TENSOR_BYTES} bytes", size_bytes)
    if len(stored) != size_bytes:
        raise message.error("tensor: the stored bytes do not fill the shape", size_bytes, len(stored))
    values = np.frombuffer(stored, dtype.newbyteorder("<")).reshape(shape)
    return Initializer(name, values, message.start)


def _value(message: Message) -> Value:
    tensor = message.message("type", _TYPE).message("tensor_type", _TENSOR_TYPE)
    code = tensor.integer("elem_type")
    if code not in TENSOR_TYPES:
        raise tensor.error("tensor: this type is not allowed", ", ".join(TENSOR_TYPES.values()), code)
    dimensions = tensor.message("shape", _SHAPE).messages("dim", _DIMENSION, MAX_RANK)
    return Value(message.text("name"), TENSOR_TYPES[code], tuple(map(_dimension, dimensions)), message.start)


def _dimension(message: Message) -> int | str:
    if message.has("dim_value") == message.has("dim_param"):
        raise message.error("tensor: a dimension must have a size or a name")
    if not message.has("dim_value"):
        return message.text("dim_param")
    return message.integer("dim_value")
