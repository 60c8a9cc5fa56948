"""The kinds of model file that a bundle can hold, and the runtimes that run each kind.

The only home of these facts: the manifest, the verifier, the interpreters, `doctor`, the exporters and the help texts read
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_MODEL_BYTES = 512 << 20  # of one model file
NEXT = "next_"  # prefix of the state outputs of `step` where inputs and outputs of a graph share one space of names
_IDENTIFIER = slice(4, 8)  # where a flatbuffer names its schema


@dataclass(frozen=True)
class Format:
    """One kind of model file.

    Attributes:
        encoder: Name of the encoder's file in a bundle.
        decoder: Name of the decoder's file in a bundle.
        identifier: Bytes 4 to 8 of every such file; None where the kind has none.
    """

    encoder: str
    decoder: str
    identifier: bytes | None


@dataclass(frozen=True)
class Runtime:
    """One interpreter for Python.

    Attributes:
        kind: The kind of model file that it runs, a key of `FORMATS`.
        module: Where its interpreter class is imported from.
        distributions: The packages that may hold it.
        install: The command that installs it.
    """

    kind: str
    module: str
    distributions: tuple[str, ...]
    install: str

    @property
    def package(self) -> str:
        """The top-level package of `module`."""
        return self.module.partition(".")[0]


FORMATS: Mapping[str, Format] = {
    "tflite": Format("encoder.tflite", "decoder.tflite", identifier=b"TFL3"),
    "onnx": Format("encoder.onnx", "decoder.onnx", identifier=None),
}

# In the order of preference.
RUNTIMES: Mapping[str, Runtime] = {
    "ai-edge-litert": Runtime(
        "tflite", "ai_edge_litert.interpreter", ("ai-edge-litert",), "pip install ai-edge-litert"
    ),
    "tflite-runtime": Runtime(
        "tflite", "tflite_runtime.interpreter", ("tflite-runtime",), "pip install 'capprune[tflite-runtime]'"
    ),
    "tensorflow": Runtime(
        "tflite", "tensorflow", ("tensorflow", "tensorflow-cpu"), "pip install 'capprune[tensorflow]'"
    ),
    "onnxruntime": Runtime("onnx", "onnxruntime", ("onnxruntime",), "pip install 'onnxruntime<1.29'"),
}


def model_kind(data: bytes) -> str:
    """Return the kind that a model file claims to be, a key of `FORMATS`; only a check of the file proves it."""
    named = (kind for kind, one in FORMATS.items() if one.identifier == data[_IDENTIFIER])
    return next(named, "onnx")


def runtimes_for(kind: str) -> tuple[str, ...]:
    """Return the names of the runtimes that run a kind of model file, the preferred one first."""
    return tuple(name for name, runtime in RUNTIMES.items() if runtime.kind == kind)
