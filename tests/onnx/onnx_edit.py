"""Editing an .onnx through the onnx package, which the runtime never imports: the other opinion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnx
from onnx import numpy_helper

Edit = Callable[[Any], object]


def edited(data: bytes, *edits: Edit) -> bytes:
    model = onnx.load_from_string(data)
    for edit in edits:
        edit(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def initializer(model: Any, name: str) -> Any:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def node(model: Any, operator: str, place: int = 0) -> Any:
    return [one for one in model.graph.node if one.op_type == operator][place]


def values(model: Any, name: str) -> NDArray[Any]:
    return np.array(numpy_helper.to_array(initializer(model, name)))


def store(model: Any, name: str, array: NDArray[Any]) -> None:
    initializer(model, name).CopyFrom(numpy_helper.from_array(array, name))


def changed(name: str, place: int, value: float) -> Edit:
    """One number of a stored tensor."""

    def edit(model: Any) -> None:
        array = values(model, name)
        array.ravel()[place] = value
        store(model, name, array)

    return edit


def attribute(model: Any, operator: str, name: str) -> Any:
    return next(one for one in node(model, operator).attribute if one.name == name)


def add(model: Any, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
    """An operator more, at the end."""
    model.graph.node.append(onnx.helper.make_node(operator, inputs, outputs, **attributes))


def add_stored(model: Any, name: str, array: NDArray[Any]) -> None:
    model.graph.initializer.append(numpy_helper.from_array(array, name))
