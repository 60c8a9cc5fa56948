"""Quantised tensors that all stock runtimes compute alike, as the file specifies.

Kernels trust the scales of a file too much. Some abort the process if they cannot represent a ratio of scales. Some
assume the scale of a bias. Some only copy numbers although the file declares another scale for the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.tflite.file import Operator, Quantisation, Tensor, TfliteModel

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
LARGEST_SCALE = float(2.0**64)
# Ratios of scales that kernels can convert to fixed-point multipliers.
LEAST_RATIO, MOST_RATIO = 2.0**-20, 2.0**7
_MOST_SUM, _MOST_INPUT = 2**31 - 1, 255
_PIECE = 1 << 20  # weights processed at once
_BIAS_TOLERANCE = 1e-5  # relative to a scale, which is a rounded product of two

_ZERO_POINTS = {"int8": (-128, 127), "int32": (0, 0)}
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Kernels assume symmetric int8 weights and multiply pairs in 16 bits, where two products of -128 overflow.
_SYMMETRIC_WEIGHTS = (*WEIGHTED, "EMBEDDING_LOOKUP")
_ONE_SCALE = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")
# Operators that move or select numbers, without conversion.
_MOVES = frozenset({
    "AVERAGE_POOL_2D", "BROADCAST_TO", "CONCATENATION", "DENSIFY", "EXPAND_DIMS", "GATHER", "MAXIMUM", "MAX_POOL_2D", "MINIMUM",
    "PACK", "PAD", "RESHAPE", "SLICE", "SPLIT", "STRIDED_SLICE", "TRANSPOSE", "UNPACK",
})  # fmt: skip
# Output quantisation fixed by the kernels, regardless of the file: (scale, zero point).
_FIXED_OUTPUT = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
_ARITHMETIC = frozenset({"ADD", "MEAN", "MUL", "QUANTIZE", "RELU", "RELU6", "SUB", "SUM"})
_INT8 = _MOVES | _ARITHMETIC | {*_FIXED_OUTPUT, *WEIGHTED, "DEQUANTIZE", "EMBEDDING_LOOKUP"}


@dataclass(frozen=True)
class Fault:
    """A broken rule of quantisation, and the tensor that breaks it."""

    rule: str
    tensor: Tensor
    expected: object = None
    found: object = None


def tensor_fault(tensor: Tensor) -> Fault | None:
    """Return the fault in the scales and zero points of one tensor; None if there is none."""
    quantisation = tensor.quantisation
    if quantisation is None:
        return Fault("quantisation: int8 numbers must have a scale", tensor) if tensor.dtype == "int8" else None
    if tensor.dtype not in _ZERO_POINTS:
        return Fault("quantisation: this type cannot be quantised", tensor, ", ".join(_ZERO_POINTS), tensor.dtype)
    scales, zero_points, axis = quantisation.scales, quantisation.zero_points, quantisation.axis
    if scales.size > 1 and not (0 <= axis < len(tensor.shape) and tensor.shape[axis] == scales.size):
        return Fault(
            "quantisation: the scales do not fit the shape", tensor, tensor.shape, f"{scales.size} on axis {axis}"
        )
    if not (np.isfinite(scales) & (scales >= SMALLEST_NORMAL)).all():
        return Fault("quantisation: a scale is not a positive number", tensor)
    if (scales > LARGEST_SCALE).any():
        return Fault("quantisation: a scale is too large", tensor, f"at most {LARGEST_SCALE:.3g}", float(scales.max()))
    low, high = _ZERO_POINTS[tensor.dtype]
    if not ((zero_points >= low) & (zero_points <= high)).all():
        return Fault("quantisation: a zero point is out of range", tensor, f"{low} to {high}")
    return None


def operator_fault(model: TfliteModel, operator: Operator) -> Fault | None:
    """Return the fault in the quantisation of an operator's tensors; None if there is none.

    Args:
        model: A file whose tensors have all passed `tensor_fault`.
        operator: An operator whose tensors exist and have the shapes and types of `tflite_shapes`.
    """
    inputs = tuple(model.tensors[index] for index in operator.inputs if index >= 0)
    outputs = tuple(model.tensors[index] for index in operator.outputs)
    if operator.name in _SYMMETRIC_WEIGHTS and (fault := _weight_fault(model, operator, inputs[0], inputs[1])):
        return fault
    if fault := _whole_number_fault(operator, inputs, outputs):
        return fault
    quantised = [tensor for tensor in (*inputs, *outputs) if tensor.dtype == "int8"]
    if not quantised:
        return None
    if operator.name not in _INT8:
        return Fault(f"quantisation: {operator.name} has no right kernel for int8", quantised[0])
    if operator.name in _MOVES:
        return _moved_fault(operator, quantised)
    if operator.name in _FIXED_OUTPUT:
        return _fixed_output_fault(operator, outputs[0])
    if operator.name in _ARITHMETIC or (operator.name in WEIGHTED and inputs[0].dtype == "int8"):
        return _ratio_fault(operator, inputs, outputs[0])
    return None


def _weight_fault(model: TfliteModel, operator: Operator, source: Tensor, weight: Tensor) -> Fault | None:
    """Check quantised weights: symmetric, and in a form that every stock runtime computes correctly."""
    if weight.dtype != "int8":
        return None
    quantisation = _quantisation(weight)
    if quantisation.zero_points.any():
        return Fault("quantisation: int8 weights must have scales and zero points of 0", weight)
    if operator.name in WEIGHTED and not model.is_constant(weight):
        return Fault(f"quantisation: int8 weights of {operator.name} must be stored", weight)
    if model.is_constant(weight) and model.once(
        lambda: bool((model.stored_values(weight) == -128).any()), "-128", weight.buffer
    ):
        return Fault("quantisation: int8 weights must not hold -128", weight, "-127 to 127")
    scales = quantisation.scales.size
    if operator.name in _ONE_SCALE and scales > 1 and source.dtype != "int8":
        return Fault(
            f"quantisation: int8 weights of {operator.name} with a scale a row and {source.dtype} inputs, "
            "which tflite-runtime 2.14 computes wrongly without a word",
            weight,
            "one scale for the tensor",
            f"{scales} scales",
        )
    if operator.name in WEIGHTED and scales > 1 and quantisation.axis != _channel_axis(operator):
        return Fault("quantisation: the scales of a weight are not those of its channels", weight,
                     f"axis {_channel_axis(operator)}", f"axis {quantisation.axis}")  # fmt: skip
    if operator.name in WEIGHTED and source.dtype == "int8" and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        return _bias_fault(model, operator, source, weight)
    return None


def _channel_axis(operator: Operator) -> int:
    return 3 if operator.name == "DEPTHWISE_CONV_2D" else 0


def _bias_fault(model: TfliteModel, operator: Operator, source: Tensor, weight: Tensor) -> Fault | None:
    """Check an int32 bias: it has the scale of the int32 sums it is added to, and the sums stay in range."""
    bias = model.tensors[operator.inputs[2]]
    if bias.quantisation is None or not model.is_constant(bias):
        return Fault("quantisation: an int32 bias must be stored and have scales", bias)
    products = _quantisation(source).scales * _quantisation(weight).scales.astype(np.float64)
    scales = bias.quantisation.scales.astype(np.float64)
    if scales.shape != products.shape or (np.abs(scales - products) > _BIAS_TOLERANCE * products).any():
        return Fault("quantisation: a bias has not the scales of input times weight", bias)
    axis = _channel_axis(operator)
    weights = model.once(lambda: _channel_sums(model, weight, axis), "sums", weight.buffer, weight.shape, axis)
    if (weights * _MOST_INPUT + np.abs(model.stored_values(bias).astype(np.int64)) > _MOST_SUM).any():
        return Fault("quantisation: a bias lets the sums of int8 products overflow", bias)
    return None


def _channel_sums(model: TfliteModel, weight: Tensor, axis: int) -> NDArray[np.int64]:
    """Return the sum of absolute int8 weights per channel, computed in pieces to limit the memory."""
    values, last = model.stored_values(weight), axis != 0
    rows = values.reshape(-1, weight.shape[-1]) if last else values.reshape(weight.shape[0], -1)
    step = max(1, _PIECE // rows.shape[1])
    pieces = (np.abs(rows[n : n + step].astype(np.int16)).sum(axis=0 if last else 1, dtype=np.int64)
              for n in range(0, len(rows), step))  # fmt: skip
    return np.sum(list(pieces), axis=0) if last else np.concatenate(list(pieces))


def _whole_number_fault(operator: Operator, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Fault | None:
    """Check that only a bias is int32 with a scale."""
    bias = inputs[2:3] if operator.name in WEIGHTED else ()
    for tensor in (*inputs, *outputs):
        if tensor.dtype == "int32" and tensor.quantisation is not None and tensor not in bias:
            return Fault("quantisation: int32 numbers have scales only where they are a bias", tensor)
    return None


def _moved_fault(operator: Operator, quantised: list[Tensor]) -> Fault | None:
    first = _quantisation(quantised[0])
    for tensor in quantised[1:]:
        other = _quantisation(tensor)
        if not (
            np.array_equal(first.scales, other.scales)
            and np.array_equal(first.zero_points, other.zero_points)
            and first.scales.size == 1
        ):
            return Fault(f"quantisation: {operator.name} does not convert, and its tensors have several scales", tensor)
    return None


def _fixed_output_fault(operator: Operator, output: Tensor) -> Fault | None:
    scale, zero_point = _FIXED_OUTPUT[operator.name]
    found = _quantisation(output)
    if found.scales[0] == np.float32(scale) and found.zero_points[0] == zero_point:
        return None
    return Fault(
        f"quantisation: {operator.name} gives int8 of one scale only",
        output,
        f"{scale}, zero point {zero_point}",
        f"{found.scales[0]}, zero point {found.zero_points[0]}",
    )


def _ratio_fault(operator: Operator, inputs: tuple[Tensor, ...], output: Tensor) -> Fault | None:
    """Check ratios of scales. Kernels hold them in fixed point; far from 1 they abort or lose precision."""
    scales = [_quantisation(tensor).scales.astype(np.float64) for tensor in inputs if tensor.dtype == "int8"]
    if output.dtype != "int8" or not scales:
        return None
    out = float(_quantisation(output).scales[0])
    ratios: list[NDArray[np.float64]] = [scale / out for scale in scales]
    if operator.name in ("MUL", *WEIGHTED):
        ratios = [scales[0] * scales[1] / out]
    for ratio in ratios:
        if not ((ratio >= LEAST_RATIO) & (ratio <= MOST_RATIO)).all():
            return Fault(
                f"quantisation: {operator.name} between scales that are too far apart",
                output,
                f"a ratio of {LEAST_RATIO:.3g} to {MOST_RATIO:.3g}",
                f"{ratio.min():.3g} to {ratio.max():.3g}",
            )
    return None


def _quantisation(tensor: Tensor) -> Quantisation:
    assert tensor.quantisation is not None  # `tensor_fault` ensures it
    return tensor.quantisation
