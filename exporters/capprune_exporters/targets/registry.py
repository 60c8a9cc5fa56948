"""Registry of the export targets; a target is imported on first use."""

from __future__ import annotations

from typing import Final

from capprune_runtime.errors import UsageError
from capprune_runtime.registry import Registry

TARGETS: Final = Registry[object](
    "capprune.targets",
    {
        "tflite": "capprune_exporters.targets.tflite:TfliteTarget",
        "onnx": "capprune_exporters.targets.onnx:OnnxTarget",
    },
    "export target",
    error=UsageError,
)
