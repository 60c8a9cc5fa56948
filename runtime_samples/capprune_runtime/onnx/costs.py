"""Cost of running an .onnx, by the rules of `tflite.costs`: multiply-adds, and memory of computed values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np

from capprune_runtime.onnx.file import Node
from capprune_runtime.onnx.shapes import Known

# As in `tflite/operators.json`: base, and per byte of the file.
LIMITS = {
    "work": (10_000_000_000, 4000),
    "live_bytes": (40 << 20, 2),
    "expanded_bytes": (
        192 << 20,
        300,
    ),  # a sparse weight of 97.5 % zeros is rebuilt with 15 bytes for each of its places
    "window_bytes": (96 << 20, 2),
}
_CALL_WORK = 20_000
_LEAST_CHANNELS = 16
_DEPTHWISE_WORK, _POOL_WORK, _MOVED_WORK, _ROW_WORK = 16, 4, 32, 512
_PRODUCTS = ("Gemm", "MatMul", "MatMulInteger")


def costs(nodes: Iterable[Node], known: Mapping[str, Known], outputs: Iterable[str]) -> dict[str, int]:
    """Return the cost of one run by its kind, a key of `LIMITS`.

    Args:
        nodes: Nodes in execution order.
        known: Every value by name, for one row.
        outputs: The names of the model's outputs.
    """
    nodes = tuple(nodes)
    rebuilt = _rebuilt(nodes, known)
    return {
        "live_bytes": _live_bytes(nodes, known, rebuilt, outputs),
        "expanded_bytes": sum(_bytes(known[name]) for name in rebuilt),
        "window_bytes": max((_window_bytes(node, known) for node in nodes), default=0),
        "work": sum(_CALL_WORK + work(node, known) for node in nodes),
    }


def run_work(nodes: Iterable[Node], known: Mapping[str, Known]) -> int:
    """Return the multiply-adds of every run: those of `costs` without what is rebuilt once, when the model is loaded."""
    nodes = tuple(nodes)
    rebuilt = _rebuilt(nodes, known)
    return sum(_CALL_WORK + work(node, known) for node in nodes if node.outputs[0] not in rebuilt)


def work(node: Node, known: Mapping[str, Known]) -> int:
    """Return the multiply-adds of an operator."""
    made, read = known[node.outputs[0]], [known[name] for name in node.inputs]
    if node.operator == "Conv":
        weight = read[1].shape
        grouped = weight[1] == 1
        channels = made.shape[1] * _DEPTHWISE_WORK if grouped else max(_LEAST_CHANNELS, made.shape[1])
        return prod(made.shape[2:]) * channels * prod(weight[1:])
    if node.operator in _PRODUCTS:
        inner = prod(read[0].shape) * made.shape[-1]  # rows · inner · columns of a Gemm, transposed or not
        return max(inner, prod(made.shape)) * max(1, _LEAST_CHANNELS // made.shape[-1])
    if node.operator == "MaxPool":
        kernel = node.attributes.get("kernel_shape", ())
        return prod(made.shape) * prod(kernel if isinstance(kernel, tuple) else ()) * _POOL_WORK
    moved = sum(prod(one.shape) for one in read) if node.operator != "Gather" else 0
    rows = prod(made.shape[:-1]) if node.operator == "Softmax" else 0
    return _MOVED_WORK * (moved + prod(made.shape) * len(node.outputs)) + _ROW_WORK * rows


def _window_bytes(node: Node, known: Mapping[str, Known]) -> int:
    if node.operator != "Conv":
        return 0
    weight, made = known[node.inputs[1]].shape, known[node.outputs[0]].shape
    return prod(made[2:]) * prod(weight[2:]) * 4 * max(2, weight[1])


def _rebuilt(nodes: Iterable[Node], known: Mapping[str, Known]) -> set[str]:
    """Return the values that depend on stored numbers alone, which onnxruntime computes once and keeps."""
    rebuilt: set[str] = set()
    for node in nodes:
        if all(name in rebuilt or known[name].stored is not None for name in node.inputs):
            rebuilt.update(node.outputs)
    return rebuilt


def _live_bytes(nodes: tuple[Node, ...], known: Mapping[str, Known], rebuilt: set[str], outputs: Iterable[str]) -> int:
    last = {name: len(nodes) for name in outputs}
    for node in reversed(nodes):
        for name in node.inputs:
            last.setdefault(name, node.index)
    ending: dict[int, int] = {}
    live = most = 0
    for node in nodes:
        for name in node.outputs:
            if name not in rebuilt:
                live += _bytes(known[name])
                end = last.get(name, node.index)
                ending[end] = ending.get(end, 0) + _bytes(known[name])
        most = max(most, live)
        live -= ending.get(node.index, 0)
    return most


def _bytes(value: Known) -> int:
    return prod(value.shape) * np.dtype(value.dtype).itemsize
