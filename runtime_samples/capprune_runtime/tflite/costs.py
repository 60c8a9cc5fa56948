"""Cost of running a model file: multiply-adds, memory of computed tensors, and convolution patches.

Shapes are free, so a file of a kilobyte can ask for minutes and gigabytes. Costs are computed from the shapes before
anything runs, and are limited by the size of the file. The limits are in `operators.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from capprune_runtime.tflite.file import Operator, Tensor, TfliteModel
from capprune_runtime.tflite.operators import LIMITS

_CALL_WORK = 20_000  # cost of an operator besides its multiply-adds
_LEAST_CHANNELS = 16  # fewest channels that a convolution computes at a time
# Approximate cost, in multiply-adds: of a number in the window of a depthwise convolution or of a pool, one that is
# read or written once, one that BROADCAST_TO writes, and a row of SOFTMAX.
_DEPTHWISE_WORK, _POOL_WORK, _MOVED_WORK, _BROADCAST_WORK, _ROW_WORK = 16, 4, 32, 256, 512
_EXPANDING = ("DENSIFY", "DEQUANTIZE")

Cost = tuple[str, int]


def costs(model: TfliteModel) -> Iterator[tuple[str, int, Operator | None]]:
    """Yield (kind of `LIMITS`, cost, operator) for a checked file; operator is None for the whole model."""
    for operator in model.operators:
        yield "window_bytes", _window_bytes(model, operator), operator
    yield "work", work(model), None
    yield "live_bytes", _live_bytes(model), None
    yield "expanded_bytes", sum(_bytes(model.tensors[index]) for index in _expanded(model)), None


def over_limit(model: TfliteModel) -> tuple[str, int, int, Operator | None] | None:
    """Return (kind, limit, cost, operator) of the first cost over its limit; None if there is none."""
    for kind, cost, operator in costs(model):
        if cost > (limit := LIMITS[kind].of(model.size_bytes)):
            return kind, limit, cost, operator
    return None


def work(model: TfliteModel) -> int:
    """Return the multiply-adds of one run of the model; `operators.json` has the weight of each operation."""
    return sum(_CALL_WORK + _work(model, operator) for operator in model.operators)


def _work(model: TfliteModel, operator: Operator) -> int:
    inputs = [model.tensors[index] for index in operator.inputs if index >= 0]
    output, name = _output(model, operator), operator.name
    if name == "CONV_2D":
        positions, channels = output.elements // output.shape[3], max(_LEAST_CHANNELS, output.shape[3])
        return positions * channels * prod(inputs[1].shape[1:])
    if name == "FULLY_CONNECTED":
        return output.elements // output.shape[-1] * max(_LEAST_CHANNELS, output.shape[-1]) * inputs[1].shape[1]
    if name == "BATCH_MATMUL":
        inner = inputs[0].shape[-2 if operator.options["transpose_x"] else -1]
        return output.elements // output.shape[-1] * max(_LEAST_CHANNELS, output.shape[-1]) * inner
    if name == "DEPTHWISE_CONV_2D":
        return output.elements * prod(inputs[1].shape[1:3]) * _DEPTHWISE_WORK
    if name in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        window = int(operator.options["filter_h"]) * int(operator.options["filter_w"])
        return output.elements * window * _POOL_WORK
    if name == "BROADCAST_TO":
        return output.elements * _BROADCAST_WORK
    rows = output.elements // output.shape[-1] if name == "SOFTMAX" else 0
    read = sum(tensor.elements for tensor in inputs) if name not in ("EMBEDDING_LOOKUP", "GATHER") else 0
    return _MOVED_WORK * (read + output.elements * len(operator.outputs)) + _ROW_WORK * rows


def _window_bytes(model: TfliteModel, operator: Operator) -> int:
    if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return 0
    weight, output = model.tensors[operator.inputs[1]], _output(model, operator)
    channels = weight.shape[3] if operator.name == "CONV_2D" else 1
    return prod(output.shape[:3]) * prod(weight.shape[1:3]) * max(8, 4 * channels)


def _live_bytes(model: TfliteModel) -> int:
    """Return the peak size of live computed tensors: each lives from its operator to its last reader."""
    last = {index: len(model.operators) for index in model.outputs}
    for operator in reversed(model.operators):
        for index in operator.inputs:
            last.setdefault(index, operator.index)
    ending: dict[int, int] = {}
    expanded = _expanded(model)
    live = most = sum(_bytes(model.tensors[index]) for index in model.inputs)
    for operator in model.operators:
        for index in operator.outputs:
            if index not in expanded:
                size = _bytes(model.tensors[index])
                live += size
                end = last.get(index, operator.index)
                ending[end] = ending.get(end, 0) + size
        most = max(most, live)
        live -= ending.get(operator.index, 0)
    return most


def _expanded(model: TfliteModel) -> set[int]:
    """Return the tensors that hold stored numbers in another form, which runtimes compute once and keep."""
    expanded: set[int] = set()
    for operator in model.operators:
        source = operator.inputs[0]
        if operator.name in _EXPANDING and (source in expanded or model.is_constant(model.tensors[source])):
            expanded.update(operator.outputs)
    return expanded


def _output(model: TfliteModel, operator: Operator) -> Tensor:
    return model.tensors[operator.outputs[0]]


def _bytes(tensor: Tensor) -> int:
    return tensor.elements * np.dtype(tensor.dtype).itemsize
