"""One way to run a .tflite signature, over the interpreters that exist for Python.

    runtime           package          where
    ai-edge-litert    ai-edge-litert   64-bit; the one that is installed with capprune
    tflite-runtime    tflite-runtime   32-bit Raspberry Pi and older images; Python 3.11, numpy below 2
    tensorflow        tensorflow       a second opinion where TensorFlow is installed anyway

Give it only bytes that `tflite_check.check_tflite` has passed: an interpreter crashes on a bad sparse tensor.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import BundleError, MissingExtra, UsageError

# In the order of `auto`: the module that has the class Interpreter, and how to get it.
_RUNTIMES = {
    "ai-edge-litert": ("ai_edge_litert.interpreter", "pip install ai-edge-litert"),
    "tflite-runtime": ("tflite_runtime.interpreter", "pip install 'capprune[tflite-runtime]'"),
    "tensorflow": ("tensorflow", "pip install 'capprune[tensorflow]'"),
}
RUNTIMES = tuple(_RUNTIMES)

# What the native code behind all three raises.
_INTERPRETER_ERRORS = (ValueError, RuntimeError, TypeError, MemoryError)


class Model:
    """A loaded .tflite and one of its signatures.

    Tensors are set and read by index on the primary subgraph. The interpreters' own signature runners resize
    and allocate every tensor at every call, which costs a small decoder more than its arithmetic.
    """

    def __init__(self, interpreter: Any, signature: str, runtime: str) -> None:
        self.runtime = runtime
        self._interpreter = interpreter
        runner = interpreter.get_signature_runner(signature)
        self._inputs = {name: int(tensor["index"]) for name, tensor in runner.get_input_details().items()}
        self._outputs = {name: int(tensor["index"]) for name, tensor in runner.get_output_details().items()}
        self._held: frozenset[str] = frozenset()

    def hold(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Set inputs that stay as they are from run to run, such as the keys and values of a photo.

        Interpreters keep the inputs of a graph when it has run. Copying them again costs a small decoder a tenth of its step.

        Args:
            inputs: Arrays for some inputs of the signature, of exactly their shapes and types; they replace what was held.

        Raises:
            BundleError: An input is unknown or does not fit.
        """
        if not inputs.keys() <= self._inputs.keys():
            raise BundleError(
                "the inputs do not fit the model", expected=", ".join(self._inputs), found=", ".join(inputs)
            )
        self._held = frozenset()
        self._set(inputs)
        self._held = frozenset(inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the signature once.

        Args:
            inputs: An array for every input of the signature that is not held, of exactly its shape and type.

        Returns:
            A copy of every output, by name.

        Raises:
            BundleError: An input is missing or does not fit, or the interpreter failed.
        """
        if inputs.keys() | self._held != self._inputs.keys():
            raise BundleError(
                "the inputs do not fit the model", expected=", ".join(self._inputs), found=", ".join(inputs)
            )
        self._held -= inputs.keys()
        self._set(inputs)
        interpreter = self._interpreter
        try:
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in self._outputs.items()}
        except _INTERPRETER_ERRORS as error:
            raise BundleError("the interpreter failed to run a model", where=self.runtime, found=error) from error

    def _set(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        try:
            for name, array in inputs.items():
                self._interpreter.set_tensor(self._inputs[name], array)
        except _INTERPRETER_ERRORS as error:
            raise BundleError("an input does not fit the model", where=self.runtime, found=error) from error


def available_runtimes() -> tuple[str, ...]:
    """The runtimes that this process could use, best first; none of them is imported by asking."""
    return tuple(runtime for runtime in RUNTIMES if _obstacle(runtime) is None)


def open_model(data: bytes, signature: str, *, runtime: str = "auto", threads: int = 1) -> Model:
    """Load a verified model into an interpreter.

    Args:
        data: The bytes of a .tflite that `check_tflite` has passed.
        signature: The signature to run.
        runtime: One of `RUNTIMES`, or `auto` for the first that is there.
        threads: Threads the interpreter may use.

    Raises:
        UsageError: No such runtime, or fewer than one thread.
        MissingExtra: The runtime is not installed, or cannot be used in this process.
        BundleError: The interpreter does not accept the model.
    """
    if threads < 1:
        raise UsageError("an interpreter needs at least one thread", where="--threads", found=threads)
    runtime = _choose(runtime)
    interpreter_class = _import(runtime)
    try:
        with warnings.catch_warnings(), _silent_native_code():
            warnings.simplefilter("ignore")  # tensorflow announces the end of tf.lite at every start
            interpreter = interpreter_class(model_content=data, num_threads=threads)
            interpreter.allocate_tensors()
        return Model(interpreter, signature, runtime)
    except _INTERPRETER_ERRORS as error:
        raise BundleError("the interpreter does not accept a model", where=runtime, found=error) from error


@contextlib.contextmanager
def _silent_native_code() -> Iterator[None]:
    """Drop what native code writes to stderr meanwhile: which delegate it made is no message for a user."""
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all, as under some service managers
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _choose(runtime: str) -> str:
    if runtime == "auto":
        if not (available := available_runtimes()):
            raise MissingExtra(
                "no interpreter for .tflite models is installed",
                expected=" or ".join(RUNTIMES),
                hint=_RUNTIMES[RUNTIMES[0]][1],
            )
        return available[0]
    if runtime not in _RUNTIMES:
        raise UsageError(
            "there is no such runtime", where="--runtime", expected=", ".join(("auto", *RUNTIMES)), found=runtime
        )
    if obstacle := _obstacle(runtime):
        raise MissingExtra(f"the runtime {runtime} cannot be used", found=obstacle, hint=_RUNTIMES[runtime][1])
    return runtime


def _obstacle(runtime: str) -> str | None:
    """Why this process cannot use a runtime; None when it can."""
    module = _RUNTIMES[runtime][0].partition(".")[0]
    if module not in sys.modules and importlib.util.find_spec(module) is None:
        return "it is not installed"
    if runtime == "tflite-runtime":
        # Both import without complaint and then fail, or corrupt memory, when a model is loaded.
        if int(np.__version__.partition(".")[0]) >= 2:
            return f"it needs numpy below 2, and this is {np.__version__}"
        if "tensorflow" in sys.modules:
            return "tensorflow is loaded in this process; use a process of its own"
    return None


def _import(runtime: str) -> Any:
    module, hint = _RUNTIMES[runtime]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            imported = importlib.import_module(module)
            return imported.lite.Interpreter if runtime == "tensorflow" else imported.Interpreter
    except (ImportError, OSError, AttributeError) as error:
        raise MissingExtra(f"the runtime {runtime} cannot be loaded", found=error, hint=hint) from error
