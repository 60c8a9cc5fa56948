"""Kinds of model file that a bundle can hold, and the runtimes that run each kind.

The only place for these facts: the manifest, the verifier, the interpreters, `doctor`, the exporters and the help texts
use it. Only files that `check` has verified reach an interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from capprune_runtime.registry import imported

MAX_MODEL_BYTES = 512 << 20  # of one model file
NEXT = "next_"  # prefix of the state outputs of `step` where inputs and outputs of a graph share one namespace
_IDENTIFIER = slice(4, 8)  # where a flatbuffer stores its file identifier


Signature = Mapping[str, tuple[tuple[int, ...], str]]  # shape and NumPy type of every input or output, by name


@dataclass(frozen=True)
class Call:
    """The call that a model file must implement.

    Attributes:
        name: Name of the call; in TFLite, of its signature.
        inputs: Its inputs, for one row.
        outputs: Its outputs.
        rows: Whether a file may accept more than one row.
    """

    name: str
    inputs: Signature
    outputs: Signature
    rows: bool = False


@dataclass(frozen=True)
class Checked:
    """Result of checking a model file.

    Attributes:
        metadata: The metadata in the file, by name.
        multiply_adds: Multiply-adds of one run for one row, with other operators counted at a fixed rate.
    """

    metadata: Mapping[str, bytes]
    multiply_adds: int


Check = Callable[[bytes, str, Call], Checked]


@dataclass(frozen=True)
class Format:
    """One kind of model file.

    Attributes:
        suffix: File name extension.
        identifier: Bytes 4 to 8 of every such file; None if the kind has no identifier.
        check: The verifier, as "module:function". It takes a file, its name and the required `Call`, and returns a
            `Checked`; it raises `BadModelFile`.
        max_bytes: Largest size of one file.
    """

    suffix: str
    identifier: bytes | None
    check: str
    max_bytes: int = MAX_MODEL_BYTES

    @property
    def encoder(self) -> str:
        """Name of the encoder's file in a bundle."""
        return "encoder" + self.suffix

    @property
    def decoder(self) -> str:
        """Name of the decoder's file in a bundle."""
        return "decoder" + self.suffix

    @property
    def files(self) -> tuple[str, str]:
        """Names of both files."""
        return self.encoder, self.decoder

    def verify(self, data: bytes, where: str, call: Call) -> Checked:
        """Check a whole model file before an interpreter loads it.

        Args:
            data: The file.
            where: Its name, for messages.
            call: The required call.

        Returns:
            The metadata in the file, and the cost of a run.

        Raises:
            BadModelFile: A rule is broken, or the file computes something else.
        """
        return cast(Check, imported(self.check))(data, where, call)


@dataclass(frozen=True)
class Runtime:
    """A Python interpreter for model files.

    Attributes:
        kind: The kind of model file it runs, a key of `FORMATS`.
        module: The module that holds its interpreter class.
        distributions: The packages that may provide it.
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
    "tflite": Format(".tflite", b"TFL3", "capprune_runtime.tflite.call:check_call"),
    "onnx": Format(".onnx", None, "capprune_runtime.onnx.call:check_call"),
}

# In order of preference.
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
    """Return the kind that a model file claims to be, a key of `FORMATS`. Only a full check of the file confirms it."""
    named = (kind for kind, one in FORMATS.items() if one.identifier == data[_IDENTIFIER])
    return next(named, "onnx")


def kind_of_name(name: str) -> str | None:
    """Return the kind of a model file by its name's extension; None if it is not a model file."""
    return next((kind for kind, one in FORMATS.items() if name.endswith(one.suffix)), None)


def model_files() -> tuple[str, ...]:
    """Return the names of all model files that a bundle may hold."""
    return tuple(name for one in FORMATS.values() for name in one.files)


def runtimes_for(kind: str) -> tuple[str, ...]:
    """Return the names of the runtimes that run a kind of model file, the preferred one first."""
    return tuple(name for name, runtime in RUNTIMES.items() if runtime.kind == kind)
