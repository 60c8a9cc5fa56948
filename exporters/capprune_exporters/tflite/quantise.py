"""Int8 weights through ai-edge-quantizer."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from capprune_exporters.quiet import quiet
from capprune_exporters.tflite.sparse import pack
from capprune_runtime.errors import ExportError, MissingExtra


def weight_only_int8(data: bytes) -> bytes:
    """Store every dense weight as int8 with one scale a channel; compute stays float32.

    A quarter of the bytes, as fast and as accurate as the other int8 forms on x86, and right in every runtime. Weights
    behind a DENSIFY, which are smaller than int8 already, stay as they are.

    Args:
        data: A float32 .tflite.

    Raises:
        MissingExtra: If ai-edge-quantizer is not installed.
        ExportError: If the quantizer gives no model.
    """
    return _quantise(data, "weight_only_wi8_afp32")


def dynamic_int8(data: bytes) -> bytes:
    """Store every weight as int8 with one scale a channel; compute in int8, with activations scaled as they come.

    The fast dense form of a decoder in LiteRT, and the rival that benchmarks compare with. It is not for bundles:
    tflite-runtime 2.14 computes it wrongly without a word, so that the verifier refuses it.

    Args:
        data: A float32 .tflite.

    Raises:
        MissingExtra: If ai-edge-quantizer is not installed.
        ExportError: If the quantizer gives no model.
    """
    return _quantise(data, "dynamic_wi8_afp32")


def _quantise(data: bytes, recipe_name: str) -> bytes:
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
        quantised = work.quantize().quantized_model
    if not quantised:
        raise ExportError("the int8 quantizer gave no model", where=recipe_name)
    return _with_inner_buffers(bytes(quantised))


def _with_inner_buffers(data: bytes) -> bytes:
    """Move weights back inside the flatbuffer.

    From 256 KiB on, the quantizer writes them behind it, which old runtimes cannot read and the verifier refuses.
    """
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 mean "inside"
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return pack(model)
