"""Int8 weights with ai-edge-quantizer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from capprune_exporters.quiet import quiet
from capprune_exporters.steps import whole_steps
from capprune_exporters.tflite.graph import add_buffer, forget_unused_buffers, operator_name, pack, unpack
from capprune_runtime.errors import ExportError, MissingExtra

# Bounds on the step of a channel's int32 sum. With a smaller share of the output's step, kernels lose the multiplier.
# With a larger bias, the sum has no room for the products.
LEAST_STEP = 2.0**-19
MOST_BIAS = 2.0**30
MOST_STEPS = 126  # that a channel can have on each side; with 127 the quantizer finds them itself
STEPPED = 0.25  # share of channels with whole steps above which an encoder was rounded to few bits
ROUNDING = 1e-5  # relative; folding a batch norm changes a step of 8 bits by less
_CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
_WITH_BIAS = frozenset({*_CHANNEL_AXIS, "FULLY_CONNECTED"})
_SHARES = np.linspace(1, 0.3, 29)  # of the range from the smallest to the largest value
_SOME_VALUES = 8192  # of a tensor and an example, to measure errors on


def weight_only_int8(data: bytes) -> bytes:
    """Store every dense weight as int8 with one scale per channel; compute stays float32.

    The weights take a quarter of the bytes. This form is as fast and accurate as the other int8 forms on x86, and
    correct in every runtime. Weights behind a DENSIFY, which are already smaller than int8, are not changed.

    Channels whose weights are whole steps keep them. If a quarter of them are, as in an encoder that was rounded to few bits,
    all scales and biases get the 8 significant bits of bfloat16, which pack to half the bytes. This changes a channel by at
    most 0.4 %, much less than the rounding did.

    Args:
        data: A float32 .tflite.

    Raises:
        MissingExtra: ai-edge-quantizer is not installed.
        ExportError: The quantizer returns no model.
    """
    work, float_model = _quantizer(data, "weight_only_wi8_afp32"), unpack(data)
    model = unpack(_quantised(work, float_model))
    floats = float_model.subgraphs[0].tensors
    stepped: list[Any] = []
    for index, weight in enumerate(model.subgraphs[0].tensors[: len(floats)]):  # the quantizer keeps the indices
        if weight.type == schema.TensorType.INT8 and floats[index].type == schema.TensorType.FLOAT32:
            axis = weight.quantization.quantizedDimension
            values = np.moveaxis(_float_values(float_model, index), axis, -1)
            scales = weight.quantization.scale
            steps = _steps_of(values.reshape(-1, values.shape[-1]), scales)
            stepped.extend(steps != scales)
            if steps is not scales:
                _store_codes(model, weight, values, steps, axis)
    if np.mean(stepped or [False]) > STEPPED:
        _shorten(model)
    forget_unused_buffers(model)
    return pack(model)


def dynamic_int8(data: bytes) -> bytes:
    """Store every weight as int8 with one scale per channel; compute in int8, with activations scaled at run time.

    Only for comparison in benchmarks. The verifier refuses it in bundles, because tflite-runtime 2.14 silently computes
    it wrongly. `make_sparse` with `dense_int8` makes a file that is as fast, and correct in every runtime.

    Args:
        data: A float32 .tflite.

    Raises:
        MissingExtra: ai-edge-quantizer is not installed.
        ExportError: The quantizer returns no model.
    """
    return _quantised(_quantizer(data, "dynamic_wi8_afp32"), unpack(data))


def static_int8(data: bytes, calibration: Iterable[Mapping[str, npt.NDArray[Any]]]) -> bytes:
    """Compute convolutions in int8, with activation ranges from examples; inputs and outputs stay float32.

    This form suits ARM and int8-only accelerators, and is also the fastest on x86. What follows the last convolution computes
    in float32: pooled features, and the masks and weights of attention, do not fit one int8 range, and there is little of it.
    The weights of FULLY_CONNECTED are int8, or unchanged behind a DENSIFY.

    The range of an activation is the one with the least squared error on the examples. It is narrower than from the smallest
    to the largest value wherever few values lie far out.

    All scales have the 8 significant bits of bfloat16, and so have the biases, as integers: they pack to about half the
    bytes. This changes a scale or a bias by at most 0.4 %.

    Args:
        data: A float32 .tflite with one signature.
        calibration: Inputs of the signature by name, such as a few dozen photos of the training split.

    Raises:
        MissingExtra: ai-edge-quantizer is not installed.
        ExportError: There is nothing to calibrate on, or the quantizer returns no model.
    """
    examples = [dict(inputs) for inputs in calibration]
    if not examples:
        raise ExportError("static int8 needs examples to calibrate on", found="none")
    float_model = unpack(data)
    work = _quantizer(data, "static_wi8_ai8")
    work.add_weight_only_config(".*", "FULLY_CONNECTED", num_bits=8)
    for regex, operator in (
        (".*", "INPUT"),
        (".*", "OUTPUT"),
        (".*", "SUM"),  # the verifier refuses its int8 form
        *_reading_densified(float_model),
        *_behind_convolutions(float_model),
    ):
        work.update_quantization_recipe(regex, operator, algorithm_key="no_quantize")
    (signature,) = float_model.signatureDefs
    with quiet():
        ranges = work.calibrate({signature.signatureKey.decode(): examples[:1]})  # of all quantised tensors
        ranges = _best_ranges(ranges, data, examples)
    model = unpack(_quantised(work, float_model, ranges))
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == schema.TensorType.INT8 and tensor.quantization.scale is not None:
            tensor.quantization.scale = _short(tensor.quantization.scale)
    for operator in model.subgraphs[0].operators:
        if operator_name(model, operator) in _CHANNEL_AXIS:
            _set_channels(model, operator, float_model)
    forget_unused_buffers(model)
    return pack(model)


def _quantizer(data: bytes, recipe_name: str) -> Any:
    try:
        with quiet():
            from ai_edge_quantizer import quantizer, recipe
    except ImportError as error:
        raise MissingExtra(
            "the int8 quantizer is not installed",
            found=error,
            expected="ai-edge-quantizer",
            hint="pip install 'capprune[tflite]'",
        ) from error
    with quiet():
        work = quantizer.Quantizer(bytearray(data))
        work.load_quantization_recipe(getattr(recipe, recipe_name)())
    return work


def _quantised(work: Any, float_model: Any, ranges: Any = None) -> bytes:
    """Return the file of a quantizer that has its recipe and, for static int8, the ranges of activations."""
    with quiet():
        quantised = work.quantize(ranges).quantized_model
    if not quantised:
        raise ExportError("the int8 quantizer gave no model")
    model = _with_inner_buffers(bytes(quantised))
    _name_outputs(model, float_model)
    return pack(model)


def _reading_densified(model: Any) -> Iterator[tuple[str, str]]:
    """Return a regular expression for the outputs of the operators that read an expanded weight, and their kind.

    The quantizer would convert such a weight to int8 in every run.
    """
    graph = model.subgraphs[0]
    kinds = {id(operator): operator_name(model, operator) for operator in graph.operators}
    expanded = {operator.outputs[0] for operator in graph.operators if kinds[id(operator)] == "DENSIFY"}
    for operator in graph.operators:
        if expanded & set(operator.inputs):
            output = graph.tensors[operator.outputs[0]].name.decode()
            yield re.escape(output), kinds[id(operator)]


def _behind_convolutions(model: Any) -> Iterator[tuple[str, str]]:
    """Return what follows the last convolution, except FULLY_CONNECTED, whose weights may be int8; see `_reading_densified`."""
    graph = model.subgraphs[0]
    kinds = [operator_name(model, operator) for operator in graph.operators]
    behind = max((place for place, kind in enumerate(kinds) if kind in _CHANNEL_AXIS), default=-1) + 1
    for operator, kind in zip(graph.operators[behind:], kinds[behind:], strict=True):
        if kind != "FULLY_CONNECTED":
            names = [graph.tensors[index].name.decode() for index in operator.outputs]
            yield (
                "^" + "".join(re.escape(f"{name};") for name in names) + "$",
                "*",
            )  # the quantizer's scope of the operator


def _best_ranges(ranges: Mapping[str, Any], data: bytes, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ranges of tensors with the least squared error, in the quantizer's form.

    Args:
        ranges: Tensors by name, each with `min` and `max`; their values do not matter.
        data: The float32 .tflite.
        examples: Inputs of its signature.
    """
    found = dict(ranges)
    for name, (low, high, values) in _activations(data, set(ranges), examples).items():
        errors = [_squared_error(values, low * share, high * share) for share in _SHARES]
        best = _SHARES[int(np.argmin(errors))]
        least, most = (np.full_like(ranges[name][side], edge) for side, edge in (("min", low), ("max", high)))
        found[name] = {**ranges[name], "min": least * best, "max": most * best}
    return found


def _activations(
    data: bytes, names: set[str], examples: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[float, float, npt.NDArray[np.float32]]]:
    """Run a float32 .tflite; return the least and the largest value of tensors, both with zero, and some of their values."""
    interpreter = Interpreter(model_content=data, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    run, random = interpreter.get_signature_runner(), np.random.default_rng(0)
    wanted = [one for one in interpreter.get_tensor_details() if one["name"] in names and one["dtype"] == np.float32]
    edges = {one["name"]: (0.0, 0.0) for one in wanted}
    some: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in edges}
    for inputs in examples:
        run(**inputs)
        for one in wanted:
            name, values = one["name"], interpreter.get_tensor(one["index"]).reshape(-1)
            low, high = edges[name]
            edges[name] = (min(low, float(values.min())), max(high, float(values.max())))
            many = values.size > _SOME_VALUES
            some[name].append(values[random.integers(0, values.size, _SOME_VALUES)] if many else values)
    return {name: (*edges[name], np.concatenate(values)) for name, values in some.items() if edges[name] != (0.0, 0.0)}


def _squared_error(values: npt.NDArray[np.float32], low: float, high: float) -> float:
    """Return the mean squared error of values that are stored in 256 steps from `low` to `high`."""
    step = (high - low) / 255
    stored = np.rint((np.clip(values, low, high) - low) / step) * step + low
    return float(np.square(stored - values).mean())


def _steps_of(values: npt.NDArray[np.float32], scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the steps of channels whose weights are multiples of one, and the scales of the others.

    The quantizer divides by the largest weight, which an encoder that was rounded to few steps has 127 of only by chance.
    With its own step, a channel keeps its weights exactly, and small integers pack better.

    Args:
        values: `(n, C)`, weights of each channel.
        scales: `(C,)` of the quantizer; returned itself if no channel has a step.
    """
    steps = whole_steps(values, MOST_STEPS)
    if not steps.any():
        return scales
    found = steps > 0
    steps = np.where(found, steps, scales)
    short = _short(steps)
    return np.where(found & (np.abs(short / steps - 1) < ROUNDING), short, steps)


def _short(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the nearest numbers with 8 significant bits, those of bfloat16."""
    return (np.asarray(values, np.float32).view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)


def _store_codes(model: Any, weight: Any, values: npt.NDArray[np.float32], scales: Any, axis: int) -> None:
    """Store a weight as codes of other scales, one for each channel, which is the last axis of `values`."""
    codes = np.moveaxis(np.clip(np.rint(values / scales), -127, 127), -1, axis).astype(np.int8)
    weight.quantization.scale, weight.buffer = scales, add_buffer(model, codes.tobytes())


def _shorten(model: Any) -> None:
    """Round the scales of int8 weights, and the float32 biases of the operators that read them; see `_short`."""
    tensors = model.subgraphs[0].tensors
    for weight in tensors:
        if weight.type == schema.TensorType.INT8:
            weight.quantization.scale = _short(weight.quantization.scale)
    for operator in model.subgraphs[0].operators:
        index = operator.inputs[2] if operator_name(model, operator) in _WITH_BIAS and len(operator.inputs) > 2 else -1
        if index >= 0 and tensors[index].type == schema.TensorType.FLOAT32:
            tensors[index].buffer = add_buffer(model, _short(_float_values(model, index)).tobytes())


def _short_integers(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Return the nearest integers with 8 significant bits."""
    return np.rint(_short(np.rint(values).astype(np.float32))).astype(np.int32)


def _set_channels(model: Any, operator: Any, float_model: Any) -> None:
    """Set the step of channels that are multiples of one, and a larger scale for those whose weights are nearly zero.

    The quantizer derives a channel's scale from its largest weight, and the step of its bias from that scale. In
    channels that died in training the bias then exceeds int32, is clipped, and makes the sum overflow.

    Args:
        model: The quantised model; the quantizer keeps the indices of tensors.
        operator: CONV_2D or DEPTHWISE_CONV_2D.
        float_model: The model before quantisation.
    """
    tensors = model.subgraphs[0].tensors
    x, weight, y = tensors[operator.inputs[0]], tensors[operator.inputs[1]], tensors[operator.outputs[0]]
    if x.type != schema.TensorType.INT8 or weight.type != schema.TensorType.INT8:
        return
    bias_index = operator.inputs[2] if len(operator.inputs) > 2 else -1
    bias = _float_values(float_model, bias_index) if bias_index >= 0 else np.zeros(len(weight.quantization.scale))
    axis = _CHANNEL_AXIS[operator_name(model, operator)]
    values = np.moveaxis(_float_values(float_model, operator.inputs[1]), axis, -1)
    scales = _steps_of(values.reshape(-1, values.shape[-1]), weight.quantization.scale)
    steps = np.float64(x.quantization.scale[0]) * scales  # step of the sum, for each channel
    least = np.maximum(np.float64(y.quantization.scale[0]) * LEAST_STEP, np.abs(bias) / MOST_BIAS)
    if not (steps >= least).all():
        scales = (np.maximum(steps, least) / x.quantization.scale[0]).astype(np.float32)
    scales = _short(scales)
    _store_codes(model, weight, values, scales, axis)
    if bias_index >= 0:
        stored = tensors[bias_index]
        stored.quantization.scale = x.quantization.scale[0] * scales
        codes_of_bias = _short_integers(bias / np.float64(stored.quantization.scale))
        stored.buffer = add_buffer(model, codes_of_bias.tobytes())


def _float_values(model: Any, index: int) -> npt.NDArray[np.float32]:
    tensor = model.subgraphs[0].tensors[index]
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)


def _name_outputs(model: Any, float_model: Any) -> None:
    """Set the outputs of the signature to those of the graph, whose order the quantizer keeps.

    If an output is also read inside the graph, the quantizer's signature names the inner tensor.
    """
    places = list(float_model.subgraphs[0].outputs)
    outputs = model.subgraphs[0].outputs
    for signature, before in zip(model.signatureDefs, float_model.signatureDefs, strict=True):
        for named, original in zip(signature.outputs, before.outputs, strict=True):
            named.tensorIndex = outputs[places.index(original.tensorIndex)]


def _with_inner_buffers(data: bytes) -> Any:
    """Move weights back inside the flatbuffer.

    From 256 KiB on, the quantizer writes them behind it, which old runtimes cannot read and the verifier refuses.
    """
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 mean "inside"
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model
