"""Infer shape and type of an operator's outputs from its inputs.

Interpreters infer shapes again when they load a model, and older ones do not check operands such as the start of a
slice. So the shapes are inferred here first. Operands that do not fit are refused, and so is a file that declares a
different shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from capprune_runtime.tflite.file import Operator, Tensor, TfliteModel

Shape = tuple[int, ...]
_MOST_NUMBERS = 8  # elements of an operand that determines a shape: two for each dimension


class DoesNotFit(Exception):
    """The operands of an operator are inconsistent; the text describes how."""


@dataclass(frozen=True)
class _Call:
    """An operator with its input tensors, without omitted ones."""

    model: TfliteModel
    operator: Operator
    inputs: tuple[Tensor, ...]

    @property
    def shape(self) -> Shape:
        return self.inputs[0].shape

    @property
    def rank(self) -> int:
        return len(self.inputs[0].shape)

    def option(self, name: str) -> int:
        return int(self.operator.options.get(name, 0))

    def axis(self, axis: int, rank: int) -> int:
        _require(-rank <= axis < rank, f"axis {axis} of {rank} dimensions")
        return axis % rank

    def constant(self, position: int, size: int | None = None) -> tuple[int, ...]:
        """Return the whole numbers of a stored operand."""
        tensor = self.inputs[position]
        _require(tensor.dtype == "int32" and len(tensor.shape) <= 2, f"input {position} must be a list of int32")
        _require(tensor.elements <= _MOST_NUMBERS, f"input {position} must have at most {_MOST_NUMBERS} numbers")
        _require(size is None or tensor.elements == size, f"input {position} must have {size} numbers")
        return tuple(self.model.stored_values(tensor).tolist())


def infer_outputs(model: TfliteModel, operator: Operator) -> tuple[tuple[Shape, str], ...]:
    """Return the (shape, type) of every output.

    Args:
        model: The file; every input of the operator exists and, if it determines a shape, is stored.
        operator: One of `operators.OPERATORS`, with as many inputs as that allows.

    Raises:
        DoesNotFit: The inputs or options are inconsistent.
    """
    call = _Call(model, operator, tuple(model.tensors[index] for index in operator.inputs if index >= 0))
    return _RULES[operator.name](call)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise DoesNotFit(rule)


def _one(call: _Call, shape: Shape, dtype: str | None = None) -> tuple[tuple[Shape, str], ...]:
    return ((shape, dtype or call.inputs[0].dtype),)


def _same_types(call: _Call) -> None:
    types = {tensor.dtype for tensor in call.inputs}
    _require(len(types) == 1, f"inputs of types {', '.join(sorted(types))}")


def _same(call: _Call) -> tuple[tuple[Shape, str], ...]:
    return _one(call, call.shape)


def _dequantised(call: _Call) -> tuple[tuple[Shape, str], ...]:
    return _one(call, call.shape, "float32")


def _quantised(call: _Call) -> tuple[tuple[Shape, str], ...]:
    return _one(call, call.shape, "int8")


def _cast(call: _Call) -> tuple[tuple[Shape, str], ...]:
    types = ("float32", "int32", "int64")
    to = call.model.tensors[call.operator.outputs[0]].dtype
    _require(call.inputs[0].dtype in types and to in types, "types " + ", ".join(types))
    return _one(call, call.shape, to)


def _broadcast(*shapes: Shape) -> Shape:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise DoesNotFit(f"shapes {' and '.join(map(str, shapes))} do not broadcast") from None


def _elementwise(call: _Call) -> tuple[tuple[Shape, str], ...]:
    _same_types(call)
    return _one(call, _broadcast(call.shape, call.inputs[1].shape))


def _broadcast_to(call: _Call) -> tuple[tuple[Shape, str], ...]:
    target = call.constant(1)
    _require(all(size > 0 for size in target) and len(target) <= 4, f"shape {target}")
    _require(_broadcast(call.shape, target) == target, f"shape {call.shape} does not broadcast to {target}")
    return _one(call, target)


def _reshape(call: _Call) -> tuple[tuple[Shape, str], ...]:
    _require(len(call.inputs[1].shape) == 1, "the new shape must be a list")
    target = list(call.constant(1))
    if target.count(-1) == 1:
        known = -prod(target)
        _require(known > 0, f"shape {target}")
        target[target.index(-1)] = prod(call.shape) // known
    _require(all(size > 0 for size in target) and prod(target) == prod(call.shape), f"shape {target}")
    return _one(call, tuple(target))


def _transpose(call: _Call) -> tuple[tuple[Shape, str], ...]:
    order = call.constant(1, call.rank)
    _require(sorted(order) == list(range(call.rank)), f"order {order}")
    return _one(call, tuple(call.shape[axis] for axis in order))


def _expand_dims(call: _Call) -> tuple[tuple[Shape, str], ...]:
    axis = call.axis(call.constant(1, 1)[0], call.rank + 1)
    return _one(call, (*call.shape[:axis], 1, *call.shape[axis:]))


def _reduce(call: _Call) -> tuple[tuple[Shape, str], ...]:
    axes = {call.axis(axis, call.rank) for axis in call.constant(1)}
    if call.option("keep_dimensions"):
        return _one(call, tuple(1 if axis in axes else size for axis, size in enumerate(call.shape)))
    return _one(call, tuple(size for axis, size in enumerate(call.shape) if axis not in axes))


def _slice(call: _Call) -> tuple[tuple[Shape, str], ...]:
    sizes = []
    for start, size, full in zip(call.constant(1, call.rank), call.constant(2, call.rank), call.shape, strict=True):
        size = full - start if size == -1 else size
        _require(start >= 0 and 0 < size <= full - start, f"{size} from {start} of {full}")
        sizes.append(size)
    return _one(call, tuple(sizes))


def _strided_slice(call: _Call) -> tuple[tuple[Shape, str], ...]:
    starts, ends, strides = (call.constant(position, call.rank) for position in (1, 2, 3))
    sizes = []
    for axis, full in enumerate(call.shape):
        start, end, bit = starts[axis], ends[axis], 1 << axis
        _require(strides[axis] > 0, f"stride {strides[axis]}")
        if call.option("shrink_axis_mask") & bit:
            _require(-full <= start < full, f"index {start} of {full}")
            masked = (call.option("begin_mask") | call.option("end_mask")) & bit
            _require(not masked, f"axis {axis} both masked and shrunk, of which runtimes make different things")
            continue
        taken = slice(
            None if call.option("begin_mask") & bit else start,
            None if call.option("end_mask") & bit else end,
            strides[axis],
        )
        sizes.append(len(range(*taken.indices(full))))
    _require(all(sizes), f"shape {sizes}")
    return _one(call, tuple(sizes))


def _pad(call: _Call) -> tuple[tuple[Shape, str], ...]:
    _require(call.inputs[1].shape == (call.rank, 2), f"paddings of shape {call.inputs[1].shape}")
    paddings = call.constant(1)
    _require(all(0 <= padding < 1 << 16 for padding in paddings), f"paddings {paddings}")
    return _one(call, tuple(size + paddings[2 * n] + paddings[2 * n + 1] for n, size in enumerate(call.shape)))


def _concatenate(call: _Call) -> tuple[tuple[Shape, str], ...]:
    _same_types(call)
    axis = call.axis(call.option("axis"), call.rank)
    _require(len({(*t.shape[:axis], *t.shape[axis + 1 :]) for t in call.inputs}) == 1, "shapes differ")
    _require(all(len(tensor.shape) == call.rank for tensor in call.inputs), "numbers of dimensions differ")
    joined = sum(tensor.shape[axis] for tensor in call.inputs)
    return _one(call, (*call.shape[:axis], joined, *call.shape[axis + 1 :]))


def _pack(call: _Call) -> tuple[tuple[Shape, str], ...]:
    _same_types(call)
    _require(len({tensor.shape for tensor in call.inputs}) == 1, "shapes differ")
    _require(call.option("values") == len(call.inputs), f"{len(call.inputs)} inputs")
    axis = call.axis(call.option("axis"), call.rank + 1)
    return _one(call, (*call.shape[:axis], len(call.inputs), *call.shape[axis:]))


def _unpack(call: _Call) -> tuple[tuple[Shape, str], ...]:
    axis, count = call.axis(call.option("axis"), call.rank), call.option("outputs")
    _require(call.shape[axis] == count, f"{count} outputs of {call.shape[axis]}")
    return _one(call, (*call.shape[:axis], *call.shape[axis + 1 :])) * count


def _split(call: _Call) -> tuple[tuple[Shape, str], ...]:
    source, count = call.inputs[1], call.option("outputs")
    axis = call.axis(call.constant(0, 1)[0], len(source.shape))
    _require(source.shape[axis] % count == 0, f"{count} parts of {source.shape[axis]}")
    part = (*source.shape[:axis], source.shape[axis] // count, *source.shape[axis + 1 :])
    return _one(call, part, source.dtype) * count


def _embedding_lookup(call: _Call) -> tuple[tuple[Shape, str], ...]:
    ids, table = call.inputs
    _require(ids.dtype == "int32" and len(ids.shape) == 1 and len(table.shape) >= 2, "ids (n), table (rows, …)")
    _require(table.dtype in ("float32", "int8"), "a table of float32 or int8")
    return _one(call, (*ids.shape, *table.shape[1:]), "float32")


def _gather(call: _Call) -> tuple[tuple[Shape, str], ...]:
    _require(call.inputs[1].dtype == "int32", "indices must be int32")
    axis = call.axis(call.option("axis"), call.rank)
    return _one(call, (*call.shape[:axis], *call.inputs[1].shape, *call.shape[axis + 1 :]))


def _weighted(call: _Call, channels: int) -> None:
    """Check the types and the bias of an operator with weights."""
    source, weight = call.inputs[0].dtype, call.inputs[1].dtype
    _require((source, weight) in (("float32", "float32"), ("float32", "int8"), ("int8", "int8")), "types")
    if len(call.inputs) == 3:
        bias = call.inputs[2]
        _require(bias.elements == channels, f"a bias of {bias.elements} for {channels} channels")
        _require(bias.dtype == ("float32" if source == "float32" else "int32"), f"a bias of {bias.dtype}")


def _fully_connected(call: _Call) -> tuple[tuple[Shape, str], ...]:
    weight = call.inputs[1].shape
    _require(len(weight) == 2 and prod(call.shape) % weight[1] == 0, f"weights {weight} on {call.shape}")
    _weighted(call, weight[0])
    if not call.option("keep_dimensions"):
        return _one(call, (prod(call.shape) // weight[1], weight[0]))
    _require(call.rank >= 1 and call.shape[-1] == weight[1], f"weights {weight} on {call.shape}")
    return _one(call, (*call.shape[:-1], weight[0]))


def _batch_matmul(call: _Call) -> tuple[tuple[Shape, str], ...]:
    left, right = call.shape, call.inputs[1].shape
    _require(len(left) >= 2 and len(right) >= 2, "at least two dimensions")
    _require((call.inputs[0].dtype, call.inputs[1].dtype) in (("float32", "float32"), ("int8", "int8")), "types")
    rows, inner = left[-2:][:: -1 if call.option("transpose_x") else 1]
    other, columns = right[-2:][:: -1 if call.option("transpose_y") else 1]
    _require(inner == other, f"{left} by {right}")
    return _one(call, (*_broadcast(left[:-2], right[:-2]), rows, columns))


def _window(call: _Call, size: int, axis: str, kernel: int) -> int:
    """Return the number of window positions along one axis."""
    stride = call.option(f"stride_{axis}")
    span = (kernel - 1) * max(1, call.option(f"dilation_{axis}")) + 1
    same = call.option("padding") == 0
    _require(
        not same or stride <= span,
        f"a window of {span} that moves by {stride} and is filled up, of which runtimes make different things",
    )
    places = ceil(size / stride) if same else ceil((size - span + 1) / stride)
    _require(places >= 1, f"a window of {span} on {size}")
    return places


def _conv(call: _Call) -> tuple[tuple[Shape, str], ...]:
    weight = call.inputs[1].shape
    _require(call.rank == 4 and len(weight) == 4 and weight[3] == call.shape[3], f"weights {weight} on {call.shape}")
    return _windows(call, weight[1], weight[2], weight[0])


def _depthwise_conv(call: _Call) -> tuple[tuple[Shape, str], ...]:
    weight = call.inputs[1].shape
    _require(call.rank == 4 and len(weight) == 4 and weight[0] == 1, f"weights {weight} on {call.shape}")
    _require(weight[3] == call.shape[3] * call.option("depth_multiplier"), f"weights {weight} on {call.shape}")
    return _windows(call, weight[1], weight[2], weight[3])


def _windows(call: _Call, height: int, width: int, channels: int) -> tuple[tuple[Shape, str], ...]:
    _weighted(call, channels)
    batch, rows, columns, _ = call.shape
    return _one(call, (batch, _window(call, rows, "h", height), _window(call, columns, "w", width), channels))


def _pool(call: _Call) -> tuple[tuple[Shape, str], ...]:
    _require(call.rank == 4, f"shape {call.shape}")
    batch, rows, columns, channels = call.shape
    height, width = call.option("filter_h"), call.option("filter_w")
    return _one(call, (batch, _window(call, rows, "h", height), _window(call, columns, "w", width), channels))


_RULES: Mapping[str, Callable[[_Call], tuple[tuple[Shape, str], ...]]] = {
    **dict.fromkeys(("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB"), _elementwise),
    **dict.fromkeys(("GELU", "LOG", "LOGISTIC", "RELU", "RELU6", "RSQRT", "SOFTMAX", "SQRT", "TANH"), _same),
    **dict.fromkeys(("MEAN", "SUM"), _reduce),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pool),
    "BATCH_MATMUL": _batch_matmul,
    "BROADCAST_TO": _broadcast_to,
    "CAST": _cast,
    "CONCATENATION": _concatenate,
    "CONV_2D": _conv,
    "DENSIFY": _same,
    "DEPTHWISE_CONV_2D": _depthwise_conv,
    "DEQUANTIZE": _dequantised,
    "EMBEDDING_LOOKUP": _embedding_lookup,
    "EXPAND_DIMS": _expand_dims,
    "FULLY_CONNECTED": _fully_connected,
    "GATHER": _gather,
    "PACK": _pack,
    "PAD": _pad,
    "QUANTIZE": _quantised,
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "SPLIT": _split,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
