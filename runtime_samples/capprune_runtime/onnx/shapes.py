"""Infer the shapes and types of an operator's outputs, or the reason why its inputs do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

from numpy.typing import NDArray

from capprune_runtime.onnx.file import MAX_RANK, TENSOR_TYPES, Node

Shape: TypeAlias = tuple[int, ...]

MAX_DEPTH = 1 << 16  # elements in one int8 product, so that its sum fits into 32 bits


class DoesNotFit(Exception):
    """The reason why an operator cannot take its inputs."""


@dataclass(frozen=True)
class Known:
    """Facts about a value that are known before the model runs; `stored` has its numbers if they are in the file."""

    shape: Shape
    dtype: str
    stored: NDArray[Any] | None = None


@dataclass(frozen=True)
class Call:
    """One operator with what is known of its inputs; omitted attributes have their defaults."""

    node: Node
    inputs: tuple[Known, ...]
    attributes: Mapping[str, Any]

    @property
    def shape(self) -> Shape:
        """Shape of the first input."""
        return self.inputs[0].shape

    def numbers(self, position: int) -> list[int]:
        """Return the whole numbers of a stored list."""
        values = self.inputs[position]
        _require(values.stored is not None and values.dtype == "int64" and len(values.shape) == 1, "a list of int64")
        _require(values.shape[0] <= MAX_RANK, f"a list of at most {MAX_RANK} numbers")
        return [int(value) for value in values.stored.tolist()] if values.stored is not None else []

    def floats(self) -> None:
        """Check that every input is float32."""
        _require(all(one.dtype == "float32" for one in self.inputs), f"{[one.dtype for one in self.inputs]}")


def infer(call: Call) -> tuple[Known, ...]:
    """Return shape and type of every output of an allowed operator.

    Raises:
        DoesNotFit: Its inputs or attributes are inconsistent.
    """
    return _OPERATORS[call.node.operator](call)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise DoesNotFit(reason)


def _axis(axis: int, rank: int) -> int:
    _require(-rank <= axis < rank, f"axis {axis} of {rank}")
    return axis % rank


def _axes(call: Call, rank: int) -> set[int]:
    listed = call.numbers(1)
    axes = {_axis(axis, rank) for axis in listed}
    _require(len(axes) == len(listed) > 0, f"axes {listed}")
    return axes


def _broadcast(*shapes: Shape) -> Shape:
    rank = max(map(len, shapes))
    sizes = []
    for column in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        larger = {size for size in column if size != 1} or {1}
        _require(len(larger) == 1, " and ".join(map(str, shapes)))
        sizes.append(larger.pop())
    return tuple(sizes)


def _floats(shape: Shape) -> tuple[Known, ...]:
    return (Known(shape, "float32"),)


def _elementwise(call: Call) -> tuple[Known, ...]:
    call.floats()
    return _floats(_broadcast(*(one.shape for one in call.inputs)))


def _unary(call: Call) -> tuple[Known, ...]:
    call.floats()
    return _floats(call.shape)


def _clip(call: Call) -> tuple[Known, ...]:
    call.floats()
    limits = call.inputs[1:]
    _require(all(limit.shape == () for limit in limits), "limits are single numbers")
    stored = [float(limit.stored) for limit in limits if limit.stored is not None]
    _require(sorted(stored) == stored, "limits in order")
    return _floats(call.shape)


def _layer_normalization(call: Call) -> tuple[Known, ...]:
    call.floats()
    sizes = call.shape[-1:]
    _require(len(sizes) == 1 and all(one.shape == sizes for one in call.inputs[1:]), f"scale and bias of {sizes}")
    return _floats(call.shape)


def _softmax(call: Call) -> tuple[Known, ...]:
    _axis(call.attributes["axis"], len(call.shape))
    return _unary(call)


def _reduce(call: Call) -> tuple[Known, ...]:
    _require(call.inputs[0].dtype == "float32", call.inputs[0].dtype)
    axes = _axes(call, len(call.shape))
    if call.attributes["keepdims"]:
        return _floats(tuple(1 if axis in axes else size for axis, size in enumerate(call.shape)))
    return _floats(tuple(size for axis, size in enumerate(call.shape) if axis not in axes))


def _unsqueeze(call: Call) -> tuple[Known, ...]:
    rank = len(call.shape) + len(call.numbers(1))
    axes, sizes = _axes(call, rank), list(call.shape)
    return (Known(tuple(1 if axis in axes else sizes.pop(0) for axis in range(rank)), call.inputs[0].dtype),)


def _squeeze(call: Call) -> tuple[Known, ...]:
    axes = _axes(call, len(call.shape))
    _require(all(call.shape[axis] == 1 for axis in axes), f"{call.shape}")
    kept = tuple(size for axis, size in enumerate(call.shape) if axis not in axes)
    return (Known(kept, call.inputs[0].dtype),)


def _reshape(call: Call) -> tuple[Known, ...]:
    wanted, elements = call.numbers(1), prod(call.shape)
    _require(all(size == -1 or size > 0 for size in wanted) and wanted.count(-1) <= 1, f"shape {wanted}")
    known = prod(size for size in wanted if size != -1)
    _require(elements % known == 0, f"{call.shape} to {wanted}")
    shape = tuple(elements // known if size == -1 else size for size in wanted)
    _require(prod(shape) == elements, f"{call.shape} to {wanted}")
    return (Known(shape, call.inputs[0].dtype),)


def _transpose(call: Call) -> tuple[Known, ...]:
    order = call.attributes["perm"]
    _require(sorted(order) == list(range(len(call.shape))), f"order {order} of {call.shape}")
    return (Known(tuple(call.shape[axis] for axis in order), call.inputs[0].dtype),)


def _concat(call: Call) -> tuple[Known, ...]:
    axis = _axis(call.attributes["axis"], len(call.shape))
    others = {(len(one.shape), one.shape[:axis], one.shape[axis + 1 :], one.dtype) for one in call.inputs}
    _require(len(others) == 1, " and ".join(f"{one.shape} {one.dtype}" for one in call.inputs))
    joined = sum(one.shape[axis] for one in call.inputs)
    return (Known((*call.shape[:axis], joined, *call.shape[axis + 1 :]), call.inputs[0].dtype),)


def _split(call: Call) -> tuple[Known, ...]:
    axis, count = _axis(call.attributes["axis"], len(call.shape)), int(call.attributes["num_outputs"])
    _require(call.shape[axis] % count == 0, f"{count} parts of {call.shape[axis]}")
    part = (*call.shape[:axis], call.shape[axis] // count, *call.shape[axis + 1 :])
    return (Known(part, call.inputs[0].dtype),) * count


def _gather(call: Call) -> tuple[Known, ...]:
    table, places = call.inputs
    _require(table.dtype == "float32" and places.dtype == "int32" and len(table.shape) >= 1, "a table and int32 places")
    return _floats((*places.shape, *table.shape[1:]))


def _gemm(call: Call) -> tuple[Known, ...]:
    call.floats()
    left, right = call.shape, call.inputs[1].shape
    _require(len(left) == len(right) == 2, f"{left} by {right}")
    rows, inner = left[::-1] if call.attributes["transA"] else left
    other, columns = right[::-1] if call.attributes["transB"] else right
    _require(inner == other, f"{left} by {right}")
    if len(call.inputs) == 3:
        _require(call.inputs[2].shape in ((columns,), (1, columns)), f"a bias of {call.inputs[2].shape}")
    return _floats((rows, columns))


def _product(left: Shape, right: Shape) -> Shape:
    _require(len(left) >= 2 and len(right) >= 2 and left[-1] == right[-2], f"{left} by {right}")
    return (*_broadcast(left[:-2], right[:-2]), left[-2], right[-1])


def _matmul(call: Call) -> tuple[Known, ...]:
    call.floats()
    return _floats(_product(call.shape, call.inputs[1].shape))


def _matmul_integer(call: Call) -> tuple[Known, ...]:
    left, right, zero = call.inputs
    _require((left.dtype, right.dtype, zero.dtype) == ("uint8", "int8", "uint8"), "uint8 by int8")
    _require(len(left.shape) == len(right.shape) == 2 and zero.shape == (), f"{left.shape} by {right.shape}")
    _require(left.shape[1] <= MAX_DEPTH, f"sums of {left.shape[1]}")
    return (Known(_product(left.shape, right.shape), "int32"),)


def _dynamic_quantize(call: Call) -> tuple[Known, ...]:
    call.floats()
    return Known(call.shape, "uint8"), Known((), "float32"), Known((), "uint8")


def _conv(call: Call) -> tuple[Known, ...]:
    call.floats()
    source, weight, group = call.shape, call.inputs[1].shape, call.attributes["group"]
    _require(len(source) == len(weight) == 4, f"weights {weight} on {source}")
    _require(weight[1] * group == source[1] and weight[0] % group == 0, f"weights {weight} on {source} in {group}")
    _require(tuple(call.attributes.get("kernel_shape", weight[2:])) == weight[2:], f"a kernel of {weight}")
    if len(call.inputs) == 3:
        _require(call.inputs[2].shape == (weight[0],), f"a bias of {call.inputs[2].shape}")
    return _floats((source[0], weight[0], *_windows(call, source, weight[2:])))


def _max_pool(call: Call) -> tuple[Known, ...]:
    call.floats()
    kernel = call.attributes.get("kernel_shape", ())
    _require(len(call.shape) == 4 and len(kernel) == 2, f"a window {kernel} on {call.shape}")
    return _floats((*call.shape[:2], *_windows(call, call.shape, kernel)))


def _windows(call: Call, source: Shape, kernel: Shape) -> list[int]:
    """Return the number of window positions along both axes."""
    pads, sizes = call.attributes.get("pads", (0, 0, 0, 0)), []
    for axis in (0, 1):
        stride = call.attributes.get("strides", (1, 1))[axis]
        span = (kernel[axis] - 1) * call.attributes.get("dilations", (1, 1))[axis] + 1
        room = source[2 + axis] + pads[axis] + pads[axis + 2] - span
        _require(room >= 0 and max(pads[axis], pads[axis + 2]) < span, f"a window of {span} on {source[2 + axis]}")
        sizes.append(room // stride + 1)
    return sizes


def _cast(call: Call) -> tuple[Known, ...]:
    to = TENSOR_TYPES.get(call.attributes["to"])
    allowed = {("int8", "float32"), ("int32", "float32"), ("uint8", "int32")}
    _require((call.inputs[0].dtype, to) in allowed, f"{call.inputs[0].dtype} to {to}")
    return (Known(call.shape, str(to)),)


def _cumsum(call: Call) -> tuple[Known, ...]:
    axis = call.inputs[1]
    _require(call.inputs[0].dtype == "int32" and len(call.shape) == 1, "a list of int32")
    _require(axis.dtype == "int64" and axis.shape == () and axis.stored is not None and axis.stored == 0, "axis 0")
    return (Known(call.shape, "int32"),)


def _constant_of_shape(call: Call) -> tuple[Known, ...]:
    sizes = call.numbers(0)
    _require(len(sizes) == 1 and sizes[0] >= 1, f"shape {sizes}")
    return _floats(tuple(sizes))


def _scatter(call: Call) -> tuple[Known, ...]:
    data, places, values = call.inputs
    _require((data.dtype, places.dtype, values.dtype) == ("float32", "int32", "float32"), "types")
    _require(
        len(data.shape) == 1 and len(places.shape) == 1 and places.shape == values.shape, "as many values as places"
    )
    return _floats(data.shape)


def _scales(call: Call, source: Known) -> None:
    scale, zero = call.inputs[1], call.inputs[2]
    _require(scale.dtype == "float32" and scale.shape == zero.shape, "as many zero points as scales")
    if scale.shape != ():
        axis = _axis(call.attributes["axis"], len(source.shape))
        _require(scale.shape == (source.shape[axis],), f"{scale.shape} scales on axis {axis} of {source.shape}")


def _quantize(call: Call) -> tuple[Known, ...]:
    source, scale, zero = call.inputs
    _scales(call, source)
    _require(source.dtype == "float32" and zero.dtype == "uint8" and scale.shape == (), "float32 to uint8, one scale")
    return (Known(source.shape, "uint8"),)


def _dequantize(call: Call) -> tuple[Known, ...]:
    source, _, zero = call.inputs
    _scales(call, source)
    _require(source.dtype == zero.dtype and source.dtype in ("uint8", "int8", "int32"), f"{source.dtype}, {zero.dtype}")
    return _floats(source.shape)


_OPERATORS: Mapping[str, Callable[[Call], tuple[Known, ...]]] = {
    **dict.fromkeys(("Add", "Div", "Mul", "Sub"), _elementwise),
    **dict.fromkeys(("Gelu", "Log", "Relu", "Sigmoid", "Sqrt", "Tanh"), _unary),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduce),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "CumSum": _cumsum,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "MatMulInteger": _matmul_integer,
    "QuantizeLinear": _quantize,
    "Reshape": _reshape,
    "ScatterElements": _scatter,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
