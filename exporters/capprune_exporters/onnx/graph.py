"""Work with the graph of an ONNX file through the `onnx` package: load, save, stored tensors, users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from capprune_runtime.errors import MissingExtra
from capprune_runtime.onnx.file import IR_VERSIONS, OPSET

PRODUCER = "capprune"


def load(data: bytes) -> Any:
    """Return an .onnx file as an editable object.

    Raises:
        MissingExtra: The package `onnx` is not installed.
    """
    return _onnx().load_from_string(data)


def save(model: Any) -> bytes:
    """Return the bytes of a model, reduced to what a runtime computes.

    Tensors are stored as raw little-endian bytes. Intermediate shapes, metadata and comments are removed: they follow
    from the graph, or only describe its origin. The result passes the checker.
    """
    onnx, graph = _onnx(), model.graph
    plain = onnx.helper.make_graph(
        [_plain_node(node) for node in graph.node],
        "main",
        [_plain_value(value) for value in graph.input],
        [_plain_value(value) for value in graph.output],
        [stored(tensor.name, values_of(tensor)) for tensor in graph.initializer],
    )
    made = onnx.helper.make_model(
        plain, producer_name=PRODUCER, ir_version=IR_VERSIONS[1], opset_imports=[onnx.helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(made, full_check=True)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def with_names(data: bytes) -> bytes:
    """Return the file with a name for every operator; quantisers refer to operators by name."""
    model = load(data)
    for number, one in enumerate(model.graph.node):
        one.name = f"{one.op_type}_{number}"
    named: bytes = model.SerializeToString()
    return named


def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    """Return an operator with one output."""
    return _onnx().helper.make_node(operator, list(inputs), [output], **attributes)


def stored(name: str, values: npt.NDArray[Any]) -> Any:
    """Return a stored tensor."""
    return _onnx().numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)


def element_type(dtype: str) -> int:
    """Return the ONNX element type of a NumPy type."""
    return int(_onnx().helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def values_of(tensor: Any) -> npt.NDArray[Any]:
    """Return the values of a stored tensor."""
    values: npt.NDArray[Any] = _onnx().numpy_helper.to_array(tensor)
    return values


def users(model: Any, name: str) -> list[Any]:
    """Return the operators that read a value."""
    return [one for one in model.graph.node if name in one.input]


def rename(model: Any, old: str, new: str) -> None:
    """Rename a stored tensor."""
    for tensor in model.graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for one in model.graph.node:
        for place, name in enumerate(one.input):
            if name == old:
                one.input[place] = new


def drop_unused(model: Any) -> None:
    """Remove unused stored tensors."""
    read = {name for one in model.graph.node for name in one.input} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _onnx() -> Any:
    """Import the package `onnx` on first use, because other targets do not need it."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra(
            "the ONNX exporter is not installed",
            found=error,
            expected="onnx, onnxscript and onnxruntime",
            hint="pip install 'capprune[onnx]'",
        ) from error
    return onnx


def _plain_node(one: Any) -> Any:
    onnx = _onnx()
    made = onnx.NodeProto(op_type=one.op_type, input=one.input, output=one.output)
    for attribute in sorted(one.attribute, key=lambda attribute: attribute.name):
        copy = made.attribute.add()
        copy.CopyFrom(attribute)
        copy.ClearField("doc_string")
        if copy.type == onnx.AttributeProto.TENSOR:
            copy.t.CopyFrom(stored("", values_of(attribute.t)))
            copy.t.ClearField("name")
    return made


def _plain_value(value: Any) -> Any:
    tensor = value.type.tensor_type
    shape = [size.dim_param or size.dim_value for size in tensor.shape.dim]
    return _onnx().helper.make_tensor_value_info(value.name, tensor.elem_type, shape)
