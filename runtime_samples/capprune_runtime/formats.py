"""The kinds of model file that a bundle can hold, and the runtimes that run each kind.

The only home of these facts: the manifest, the verifier, the interpreters, `doctor`, the exporters and the help texts read
it. A kind of file is here because `check` verifies it; nothing else ever reaches an interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from capprune_runtime.registry import imported

MAX_MODEL_BYTES = 512 << 20  # of one model file
NEXT = "next_"  # prefix of the state outputs of `step` where inputs and outputs of a graph share one space of names
_IDENTIFIER = slice(4, 8)  # where a flatbuffer names its schema


Signature = Mapping[str, tuple[tuple[int, ...], str]]  # shape and NumPy type of every input or output, by name


@dataclass(frozen=True)
class Call:
    """What a model file must compute.

    Attributes:
        name: Of the call: in TFLite its signature.
        inputs: What it takes, for one row.
        outputs: What it returns.
        rows: Whether a file may take more rows than one.
    """

    name: str
    inputs: Signature
    outputs: Signature
    rows: bool = False


@dataclass(frozen=True)
class Checked:
    """What a check learnt of a model file.

    Attributes:
        metadata: The metadata in the file, by name.
        multiply_adds: Products that one run adds up for one row, other operators included at a fixed rate.
    """

    metadata: Mapping[str, bytes]
    multiply_adds: int


Check = Callable[[bytes, str, Call], Checked]


@dataclass(frozen=True)
class Format:
    """One kind of model file.

    Attributes:
        suffix: The ending of a file's name.
        identifier: Bytes 4 to 8 of every such file; None where the kind has none.
        check: The verifier, as "module:function". It takes a file, its name and the `Call` that it must have, raises
            `BadModelFile`, and returns what it learnt.
        max_bytes: Of one file.
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
        """The names of both files."""
        return self.encoder, self.decoder

    def verify(self, data: bytes, where: str, call: Call) -> Checked:
        """Check a whole model file before an interpreter may see it.

        Args:
            data: The file.
            where: Its name, for messages.
            call: What it must compute.

        Returns:
            The metadata in the file, and what a run costs.

        Raises:
            BadModelFile: A rule is broken, or the file computes something else.
        """
        return cast(Check, imported(self.check))(data, where, call)


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
    "tflite": Format(".tflite", b"TFL3", "capprune_runtime.tflite.call:check_call"),
    "onnx": Format(".onnx", None, "capprune_runtime.onnx.call:check_call"),
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


def kind_of_name(name: str) -> str | None:
    """Return the kind of model file that a name stands for, by its ending; None if it is no model file's."""
    return next((kind for kind, one in FORMATS.items() if name.endswith(one.suffix)), None)


def model_files() -> tuple[str, ...]:
    """Return the names of all model files that a bundle may hold."""
    return tuple(name for one in FORMATS.values() for name in one.files)


def runtimes_for(kind: str) -> tuple[str, ...]:
    """Return the names of the runtimes that run a kind of model file, the preferred one first."""
    return tuple(name for name, runtime in RUNTIMES.items() if runtime.kind == kind)
