"""Int8 encoders: stored as int8 only, or computed in int8 with ranges from real photos."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from capprune_exporters.onnx import graph
from capprune_exporters.quantise import int8_per_row
from capprune_exporters.quiet import quiet
from capprune_runtime.atomic import raise_if_unwritable
from capprune_runtime.errors import ExportError, MissingExtra

SMALLEST = 1024  # weights; for smaller tensors two more operators cost more than the 3 bytes saved a weight
_FLOAT_ONLY = frozenset({"Div", "Gelu", "LayerNormalization", "Log", "Softmax", "Sqrt"})
_MOVES = frozenset({"Concat", "MaxPool"})  # the quantizer would dequantise their inputs, which the verifier refuses
SPARSE = 0.5  # share of zeros above which gaps take fewer bytes than a code for every weight


def weight_only_int8(data: bytes) -> bytes:
    """Store the filters of convolutions as int8 with one scale per channel; compute stays float32.

    The filters take a quarter of the bytes. onnxruntime expands them once, when it loads the file.

    Args:
        data: A float32 .onnx.
    """
    model = graph.load(data)
    for tensor in list(model.graph.initializer):
        values = graph.values_of(tensor)
        operators = graph.users(model, tensor.name)
        if values.ndim < 3 or values.size < SMALLEST or {one.op_type for one in operators} != {"Conv"}:
            continue
        codes, scales = int8_per_row(values.reshape(len(values), -1))
        name = tensor.name
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(graph.stored(f"{name}.codes", codes.reshape(values.shape)))
        shape = (-1, *(1 for _ in values.shape[1:]))
        model.graph.initializer.append(graph.stored(f"{name}.scales", scales.reshape(shape)))
        cast = graph.node("Cast", [f"{name}.codes"], f"{name}.numbers", to=graph.element_type("float32"))
        model.graph.node.insert(0, cast)
        model.graph.node.insert(1, graph.node("Mul", [f"{name}.numbers", f"{name}.scales"], name))
    return graph.save(model)


def static_int8(data: bytes, calibration: Iterable[Mapping[str, npt.NDArray[Any]]]) -> bytes:
    """Compute in int8, with one weight scale per channel and activation ranges measured on photos.

    Inputs and outputs are float. Weights have 7 bits: onnxruntime adds products in pairs of 16 bits on x86 without
    VNNI, and 8 bits would saturate. Matrices with many zeros stay in float32, for `make_gapped`. So do all operators
    after the last convolution, if they include attention.

    Args:
        data: A float32 .onnx.
        calibration: A few dozen samples of the inputs, by name; read once.

    Raises:
        MissingExtra: onnxruntime is not installed.
        ExportError: There is nothing to calibrate on.
    """
    quantization = _quantizer()
    photos = iter(calibration)
    first = next(photos, None)
    if first is None:
        raise ExportError("the encoder cannot be quantised", found="no photos to calibrate on")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]  # the package has no types
        """Passes the photos to the quantizer, one by one."""

        remaining = chain((first,), photos)

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            """Return the next photo, or None."""
            photo = next(self.remaining, None)
            return None if photo is None else dict(photo)

    with tempfile.TemporaryDirectory() as folder, quiet():
        source, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("source", "prepared", "made"))
        try:
            source.write_bytes(graph.with_names(data))
            quantization.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(made),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                nodes_to_exclude=_kept_in_float(graph.load(prepared.read_bytes())),
            )
            return graph.save(graph.load(made.read_bytes()))
        except (OSError, ValueError, RuntimeError) as error:
            raise_if_unwritable(error, Path(folder))
            raise ExportError("the encoder cannot be quantised", found=error) from error


def _quantizer() -> ModuleType:
    """Import onnxruntime's quantizer, with its telemetry disabled."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it at import
    try:
        with quiet():
            from onnxruntime import quantization
    except ImportError as error:
        raise MissingExtra(
            "the int8 quantizer is not installed",
            found=error,
            expected="onnxruntime",
            hint="pip install 'capprune[onnx]'",
        ) from error
    return quantization  # type: ignore[no-any-return]


def _kept_in_float(model: Any) -> list[str]:
    """Return the names of the operators that compute in float32."""
    moves = [one.name for one in model.graph.node if one.op_type in _MOVES]
    return [*moves, *_sparse_products(model), *_attention(model)]


def _attention(model: Any) -> list[str]:
    """Return the names of the operators after the last convolution, if any of them normalises or attends."""
    nodes = list(model.graph.node)
    behind = max((place for place, one in enumerate(nodes) if one.op_type == "Conv"), default=-1) + 1
    return [one.name for one in nodes[behind:]] if _FLOAT_ONLY & {one.op_type for one in nodes} else []


def _sparse_products(model: Any) -> list[str]:
    """Return the names of the products whose weight has many zeros."""
    zeros = {tensor.name: float(np.mean(graph.values_of(tensor) == 0)) for tensor in model.graph.initializer}
    return [
        one.name
        for one in model.graph.node
        if one.op_type in ("MatMul", "Gemm") and any(zeros.get(name, 0) >= SPARSE for name in one.input)
    ]
