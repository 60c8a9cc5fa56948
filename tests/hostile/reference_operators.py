"""Every operator of the bundle format in plain NumPy, one function each; see `reference` for what they carry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from reference_values import (
    FUNCTION_ERROR,
    HYBRID_STEPS,
    LARGEST,
    LOOKUP_STEPS,
    MAX_ELEMENTS,
    ROUNDING,
    SMALLEST,
    Array,
    Call,
    Known,
    OutOfRange,
    Step,
    Unknown,
)

LOGISTIC_LIMIT = (
    1e12  # the kernel of XNNPACK gives NaN somewhere beyond; scores that are not finite are an error anyway
)

ROOT_LIMIT = (
    2.0**125
)  # kernels of XNNPACK give another root, and no logarithm, beyond; and no reciprocal root below SMALLEST
APPROXIMATION = 4 * ROUNDING  # of kernels that begin with an estimate and refine it
GELU_SLOPE = 1.13  # its largest

# --- one number in, one number out -------------------------------------------------------------------------------------


def activated(call: Call, result: Known) -> Known:
    """The activation that is fused into an operator: 0 none, 1 RELU, 2 RELU_N1_TO_1, 3 RELU6, 4 TANH."""
    which = call.option("activation")
    if which == 4:
        return Known(np.tanh(result.value), _at_most(2, result.error) + FUNCTION_ERROR)
    low, high = {0: (-np.inf, np.inf), 1: (0, np.inf), 2: (-1, 1), 3: (0, 6)}[which]
    return Known(result.value.clip(low, high), result.error)


def clipped(low: float, high: float) -> Step:
    return lambda call: [Known(call[0].value.clip(low, high), call[0].error)]


def tanh(call: Call) -> list[Known]:
    return [Known(np.tanh(call[0].value), _at_most(2, call[0].error) + FUNCTION_ERROR + _lookup(call))]


def logistic(call: Call) -> list[Known]:
    x = call[0]
    error = _at_most(1, x.error / 4) + FUNCTION_ERROR + _lookup(call)
    return [Known(1 / (1 + np.exp(-x.value)), np.where(x.largest > LOGISTIC_LIMIT, np.inf, error))]


def softmax(call: Call) -> list[Known]:
    x = call[0]
    grown = np.exp(x.value - x.value.max(axis=-1, keepdims=True))
    value = grown / grown.sum(axis=-1, keepdims=True)
    spread = np.minimum(2 * x.error.max(axis=-1, keepdims=True), 50)  # e^50 says nothing about a share of 1
    error = np.minimum(value * np.expm1(spread), 1) + FUNCTION_ERROR + _lookup(call)
    return [Known(value, np.where(np.isinf(x.error).any(-1, keepdims=True), np.inf, error))]


def sqrt(call: Call) -> list[Known]:
    return [_of_positive(call[0], np.sqrt, lambda least: 0.5 / np.sqrt(least))]


def rsqrt(call: Call) -> list[Known]:
    return [_of_positive(call[0], lambda x: 1 / np.sqrt(x), lambda least: 0.5 * least**-1.5)]


def log(call: Call) -> list[Known]:
    known = _of_positive(call[0], np.log, lambda least: 1 / least)
    return [Known(known.value, known.error + FUNCTION_ERROR)]


def _of_positive(x: Known, function: Callable[[Array], Array], steepest: Callable[[Array], Array]) -> Known:
    """A function that kernels compute only of positive numbers of ordinary size; and the root of an exact 0.

    Args:
        x: What it is a function of.
        function: The function.
        steepest: Its largest slope above the least that a number may be.
    """
    value, least = function(x.value), x.value - x.error
    error = np.where(least > SMALLEST, x.error * steepest(least), np.inf) + APPROXIMATION * np.abs(value)
    error = np.where(x.largest > ROOT_LIMIT, np.inf, error)
    return Known(value, np.where((x.value == 0) & (x.error == 0) & (value == 0), 0.0, error))


def gelu(call: Call) -> list[Known]:
    x = call[0]
    if call.option("approximate"):
        share = (1 + np.tanh(np.sqrt(2 / np.pi) * (x.value + 0.044715 * x.value**3))) / 2
    else:
        share = (1 + np.vectorize(math.erf, otypes=[np.float64])(x.value / np.sqrt(2))) / 2
    return [Known(x.value * share, GELU_SLOPE * x.error + FUNCTION_ERROR * x.largest)]


def _at_most(bound: float, error: Array) -> Array:
    """Errors that a bounded function bounds; not those of numbers that may be no numbers at all."""
    return np.where(np.isinf(error), np.inf, np.minimum(error, bound))


def _lookup(call: Call) -> float:
    """More for a function that is looked up in a table of int8."""
    quantisation = call.output.quantisation
    return 0.0 if quantisation is None else LOOKUP_STEPS * float(quantisation.scales[0])


def same(call: Call) -> list[Known]:
    """QUANTIZE, DEQUANTIZE, DENSIFY: the same real numbers, stored in another way."""
    return [call[0]]


def cast(call: Call) -> list[Known]:
    x = call[0]
    if call.output.dtype == "float32":
        return [x]
    if call.tensor(0).dtype != "float32":
        return [x]
    low, high = np.trunc(x.value - x.error), np.trunc(x.value + x.error)
    return [Known(np.trunc(x.value), np.where(low == high, 0, high - low))]


# --- two numbers in ------------------------------------------------------------------------------------------------------


def add(call: Call) -> list[Known]:
    a, b = call[0], call[1]
    return [activated(call, Known(a.value + b.value, a.error + b.error))]


def subtract(call: Call) -> list[Known]:
    a, b = call[0], call[1]
    return [activated(call, Known(a.value - b.value, a.error + b.error))]


def squared_difference(call: Call) -> list[Known]:
    a, b = call[0], call[1]
    difference = a.value - b.value
    error = a.error + b.error + ROUNDING * np.abs(difference)
    return [Known(difference**2, 2 * np.abs(difference) * error + error**2)]


def multiply(call: Call) -> list[Known]:
    a, b = call[0], call[1]
    error = np.abs(a.value) * b.error + np.abs(b.value) * a.error + a.error * b.error
    return [activated(call, Known(a.value * b.value, error))]


def divide(call: Call) -> list[Known]:
    if call.output.dtype != "float32":
        raise Unknown(f"DIV {call.output.dtype}")
    a, b = call[0], call[1]
    least = np.abs(b.value) - b.error - SMALLEST
    value = a.value / b.value
    error = np.where(least > 0, (a.error + np.abs(value) * b.error) / least, np.inf)
    return [activated(call, Known(value, error))]


def larger(call: Call) -> list[Known]:
    a, b = call[0], call[1]
    return [Known(np.maximum(a.value, b.value), np.maximum(a.error, b.error))]


def smaller(call: Call) -> list[Known]:
    a, b = call[0], call[1]
    return [Known(np.minimum(a.value, b.value), np.maximum(a.error, b.error))]


# --- moves ------------------------------------------------------------------------------------------------------------------


def reshape(call: Call) -> list[Known]:
    return [call[0].moved(lambda array: array.reshape(call.output.shape))]


def transpose(call: Call) -> list[Known]:
    return [call[0].moved(lambda array: array.transpose(call.whole(1)))]


def broadcast_to(call: Call) -> list[Known]:
    return [call[0].moved(lambda array: np.broadcast_to(array, call.whole(1)))]


def slice_(call: Call) -> list[Known]:
    bounds = zip(call.whole(1), call.whole(2), strict=True)
    taken = tuple(slice(start, None if size == -1 else start + size) for start, size in bounds)
    return [call[0].moved(lambda array: array[taken])]


def strided_slice(call: Call) -> list[Known]:
    taken: list[slice | int] = []
    for axis, (start, end, stride) in enumerate(zip(call.whole(1), call.whole(2), call.whole(3), strict=True)):
        bit = 1 << axis
        if call.option("shrink_axis_mask") & bit:
            taken.append(start)
        else:
            begin = None if call.option("begin_mask") & bit else start
            taken.append(slice(begin, None if call.option("end_mask") & bit else end, stride))
    return [call[0].moved(lambda array: np.array(array[tuple(taken)]))]


def pad(call: Call) -> list[Known]:
    paddings = np.array(call.whole(1)).reshape(-1, 2)
    return [call[0].moved(lambda array: np.pad(array, paddings))]


def concatenate(call: Call) -> list[Known]:
    axis, parts = call.option("axis"), [call[n] for n in range(len(call.inputs))]
    joined = Known(
        np.concatenate([part.value for part in parts], axis), np.concatenate([part.error for part in parts], axis)
    )
    return [activated(call, joined)]


def pack(call: Call) -> list[Known]:
    axis, parts = call.option("axis"), [call[n] for n in range(len(call.inputs))]
    return [Known(np.stack([part.value for part in parts], axis), np.stack([part.error for part in parts], axis))]


def unpack(call: Call) -> list[Known]:
    axis = call.option("axis")
    return [call[0].moved(lambda array, n=n: array.take(n, axis)) for n in range(call.option("outputs"))]  # type: ignore[misc]


def split(call: Call) -> list[Known]:
    axis, count = call.whole(0)[0], call.option("outputs")
    values, errors = np.split(call[1].value, count, axis), np.split(call[1].error, count, axis)
    return [Known(value, error) for value, error in zip(values, errors, strict=True)]


def gather(call: Call) -> list[Known]:
    return [_taken(call[0], call[1], call.option("axis"))]


def embedding_lookup(call: Call) -> list[Known]:
    return [_taken(call[1], call[0], 0)]


def _taken(source: Known, places: Known, axis: int) -> Known:
    if places.error.any():
        raise Unknown("places that are computed from floats")
    indices = places.value.astype(np.int64)
    if ((indices < 0) | (indices >= source.value.shape[axis])).any():
        raise OutOfRange
    return source.moved(lambda array: array.take(indices, axis))


# --- sums -------------------------------------------------------------------------------------------------------------------


def total(call: Call) -> list[Known]:
    axes = tuple(sorted({axis % call[0].value.ndim for axis in call.whole(1)}))
    count = int(np.prod([call[0].value.shape[axis] for axis in axes], dtype=np.int64))
    rounded = _rounded(call[0], count)
    return [Known(call[0].value.sum(axes), _summed(rounded.sum(axes), count))]


def mean(call: Call) -> list[Known]:
    (result,) = total(call)
    count = call[0].value.size / max(1, result.value.size)
    return [Known(result.value / count, result.error / count)]


def _rounded(x: Known, terms: int) -> Array:
    """The errors of numbers that are added up, each with its share of the sum's rounding."""
    return x.error + terms * ROUNDING * x.largest


def _summed(error: Array, terms: int) -> Array:
    """The error of a sum of `_rounded` numbers; infinite where the sum might overflow on the way."""
    return np.where(error >= terms * ROUNDING * LARGEST, np.inf, error)


def batch_matmul(call: Call) -> list[Known]:
    a, b = call[0], call[1]
    if call.option("transpose_x"):
        a = a.moved(lambda array: array.swapaxes(-1, -2))
    if call.option("transpose_y"):
        b = b.moved(lambda array: array.swapaxes(-1, -2))
    terms = a.value.shape[-1]
    if a.value.size * b.value.shape[-1] > MAX_ELEMENTS:
        raise Unknown("a large product")
    error = _rounded(a, terms) @ np.abs(b.value) + a.largest @ b.error
    return [Known(a.value @ b.value, _summed(error, terms))]


Linear = Callable[[Array, Array], Array]


def _weighted(call: Call, apply: Linear, terms: int, rows: int) -> list[Known]:
    """An operator that is linear in its input and in its weight, with a bias for each output channel.

    Args:
        call: Input, weight and perhaps bias.
        apply: The operator on (input, weight).
        terms: How many products a result adds up.
        rows: How many leading dimensions a kernel keeps apart when it quantises float activations.
    """
    x, weight = call[0], call[1]
    if x.value.size * terms > 8 * MAX_ELEMENTS or weight.value.size > MAX_ELEMENTS:
        raise Unknown("a large product")
    error = _rounded(x, terms)
    if call.tensor(0).dtype == "float32" and call.tensor(1).dtype == "int8":
        error = error + HYBRID_STEPS * _activation_step(x, rows)
    value = apply(x.value, weight.value)
    error = apply(error, np.abs(weight.value))
    if weight.error.any():
        error = error + apply(x.largest, weight.error)
    if len(call.inputs) > 2 and call.inputs[2] is not None:
        bias = call[2].value.ravel()
        value, error = value + bias, error + call[2].error.ravel() + terms * ROUNDING * np.abs(bias)
    return [activated(call, Known(value, _summed(error, terms)))]


def _activation_step(x: Known, rows: int) -> Array:
    """The step of int8 activations, symmetric or not, whichever is wider; a row has one, or all rows share it."""
    axes = tuple(range(rows, x.value.ndim))
    high, low = (x.value + x.error).max(axes, keepdims=True), (x.value - x.error).min(axes, keepdims=True)
    symmetric = np.maximum(np.abs(high), np.abs(low)) / 127
    return np.maximum(symmetric, (np.maximum(high, 0) - np.minimum(low, 0)) / 255)


def fully_connected(call: Call) -> list[Known]:
    width = call.tensor(1).shape[1]
    flat = call[0].moved(lambda array: array.reshape(-1, width))
    call = Call(call.model, call.operator, (flat, *call.inputs[1:]))
    return _weighted(call, lambda x, weight: x @ weight.T, width, rows=1)


def conv_2d(call: Call) -> list[Known]:
    _, height, width, channels = call.tensor(1).shape
    windows = _windows(call, height, width)

    def apply(x: Array, weight: Array) -> Array:
        result = np.zeros(call.output.shape)
        for (row, column), view in windows(x):
            result += view @ weight[:, row, column].T
        return result

    return _weighted(call, apply, height * width * channels, rows=1)


def depthwise_conv_2d(call: Call) -> list[Known]:
    _, height, width, _ = call.tensor(1).shape
    windows, multiplier = _windows(call, height, width), call.option("depth_multiplier")

    def apply(x: Array, weight: Array) -> Array:
        result = np.zeros(call.output.shape)
        for (row, column), view in windows(x):
            result += view.repeat(multiplier, -1) * weight[0, row, column]
        return result

    return _weighted(call, apply, height * width, rows=1)


def average_pool_2d(call: Call) -> list[Known]:
    height, width = call.option("filter_h"), call.option("filter_w")
    windows = _windows(call, height, width)
    rounded = _rounded(call[0], min(height, 4096) * min(width, 4096))
    value, error, count = (np.zeros(call.output.shape) for _ in range(3))
    for (_, x), (_, e), (_, one) in zip(
        windows(call[0].value), windows(rounded), windows(np.ones_like(call[0].value)), strict=True
    ):
        value, error, count = value + x, error + e, count + one
    return [activated(call, Known(value / count, error / count))]


def max_pool_2d(call: Call) -> list[Known]:
    windows = _windows(call, call.option("filter_h"), call.option("filter_w"))
    value, error = np.full(call.output.shape, -np.inf), np.zeros(call.output.shape)
    for (_, x), (_, e), (_, one) in zip(
        windows(call[0].value), windows(call[0].error), windows(np.ones_like(call[0].value)), strict=True
    ):
        value, error = np.maximum(value, np.where(one > 0, x, -np.inf)), np.maximum(error, e)
    return [activated(call, Known(value, error))]


def _windows(call: Call, height: int, width: int) -> Callable[[Array], list[tuple[tuple[int, int], Array]]]:
    """For each place in a window, what lies there for every place of the output; 0 beyond the edge."""
    if height * width > 4096:
        raise Unknown("a large window")
    _, rows, columns, _ = call.output.shape
    spans = []
    for axis, kernel, places, size in (
        ("h", height, rows, call.tensor(0).shape[1]),
        ("w", width, columns, call.tensor(0).shape[2]),
    ):
        stride, dilation = call.option(f"stride_{axis}"), max(1, call.option(f"dilation_{axis}"))
        needed = (places - 1) * stride + (kernel - 1) * dilation + 1
        before = max(0, needed - size) // 2 if call.option("padding") == 0 else 0
        spans.append((stride, dilation, places, (before, max(0, needed - size - before))))
    (row_stride, row_step, _, above), (column_stride, column_step, _, left) = spans
    if (call.tensor(0).shape[1] + sum(above)) * (call.tensor(0).shape[2] + sum(left)) > MAX_ELEMENTS:
        raise Unknown("a large window")

    def windows(x: Array) -> list[tuple[tuple[int, int], Array]]:
        padded = np.pad(x, ((0, 0), above, left, (0, 0)))
        found = []
        for row in range(height):
            for column in range(width):
                y, z = row * row_step, column * column_step
                found.append((
                    (row, column),
                    padded[:, y : y + (rows - 1) * row_stride + 1 : row_stride,
                           z : z + (columns - 1) * column_stride + 1 : column_stride],
                ))  # fmt: skip
        return found

    return windows


STEPS: Mapping[str, Step] = {
    "ADD": add,
    "AVERAGE_POOL_2D": average_pool_2d,
    "BATCH_MATMUL": batch_matmul,
    "BROADCAST_TO": broadcast_to,
    "CAST": cast,
    "CONCATENATION": concatenate,
    "CONV_2D": conv_2d,
    "DENSIFY": same,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "DEQUANTIZE": same,
    "DIV": divide,
    "EMBEDDING_LOOKUP": embedding_lookup,
    "EXPAND_DIMS": reshape,
    "FULLY_CONNECTED": fully_connected,
    "GATHER": gather,
    "GELU": gelu,
    "LOG": log,
    "LOGISTIC": logistic,
    "MAXIMUM": larger,
    "MAX_POOL_2D": max_pool_2d,
    "MEAN": mean,
    "MINIMUM": smaller,
    "MUL": multiply,
    "PACK": pack,
    "PAD": pad,
    "QUANTIZE": same,
    "RELU": clipped(0, np.inf),
    "RELU6": clipped(0, 6),
    "RESHAPE": reshape,
    "RSQRT": rsqrt,
    "SLICE": slice_,
    "SOFTMAX": softmax,
    "SPLIT": split,
    "SQRT": sqrt,
    "SQUARED_DIFFERENCE": squared_difference,
    "STRIDED_SLICE": strided_slice,
    "SUB": subtract,
    "SUM": total,
    "TANH": tanh,
    "TRANSPOSE": transpose,
    "UNPACK": unpack,
}

MOVES = frozenset({
    "BROADCAST_TO", "DENSIFY", "EXPAND_DIMS", "GATHER", "MAXIMUM", "MINIMUM", "PACK", "PAD", "RESHAPE", "SLICE", "SPLIT",
    "STRIDED_SLICE", "TRANSPOSE", "UNPACK",
})  # fmt: skip
