"""One interface to all Python interpreters for verified models.

    runtime           package          runs      where
    ai-edge-litert    ai-edge-litert   .tflite   64-bit; installed with capprune
    tflite-runtime    tflite-runtime   .tflite   32-bit Raspberry Pi and older images; Python 3.11, numpy below 2
    tensorflow        tensorflow       .tflite   an alternative where TensorFlow is installed anyway
    onnxruntime       onnxruntime      .onnx     64-bit

Pass only bytes that `tflite.check` or `onnx.check` has accepted: an interpreter crashes on an invalid sparse tensor.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import BundleError, CapPruneError, MissingExtra, NotEnoughMemory, UsageError
from capprune_runtime.formats import NEXT, RUNTIMES, model_kind, runtimes_for
from capprune_runtime.memory import MODEST_BYTES, ran_out

# Exceptions of the native code behind the TFLite interpreters; onnxruntime also has its own classes.
_INTERPRETER_ERRORS = (ValueError, RuntimeError, TypeError, IndexError, MemoryError)
_NOT_INSTALLED = "it is not installed"
_SILENT = 4  # onnxruntime's log level for fatal errors only


class _Engine(Protocol):
    """An interpreter that has loaded a model."""

    inputs: tuple[str, ...]
    errors: tuple[type[Exception], ...]

    def set(self, name: str, array: NDArray[Any]) -> None:
        """Set an input, which keeps its value until it is set again."""

    def write(self, name: str, position: int, array: NDArray[Any]) -> None:
        """Overwrite one slice of an input along the dimension after the batch."""

    def invoke(self) -> dict[str, NDArray[Any]]:
        """Run the model; return its outputs by name, in arrays that later runs do not change."""


class _Tflite:
    """A TFLite interpreter; tensors are set and read by index on the primary subgraph.

    The interpreters' own signature runners resize and allocate every tensor at every call. For a small decoder this
    costs more than its arithmetic.
    """

    errors: tuple[type[Exception], ...] = _INTERPRETER_ERRORS

    def __init__(self, interpreter: Any, signature: str) -> None:
        self._interpreter = interpreter
        runner = interpreter.get_signature_runner(signature)
        self._places = {name: int(tensor["index"]) for name, tensor in runner.get_input_details().items()}
        self._outputs = {name: int(tensor["index"]) for name, tensor in runner.get_output_details().items()}
        self.inputs = tuple(self._places)

    def set(self, name: str, array: NDArray[Any]) -> None:
        self._interpreter.set_tensor(self._places[name], array)

    def write(self, name: str, position: int, array: NDArray[Any]) -> None:
        # the view must be released after this line: interpreters refuse to run while one exists
        self._interpreter.tensor(self._places[name])()[0, position] = array

    def invoke(self) -> dict[str, NDArray[Any]]:
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


class _Onnx:
    """An onnxruntime session; contiguous arrays are read in place, without a copy."""

    def __init__(self, session: Any, errors: tuple[type[Exception], ...]) -> None:
        self.errors = errors
        self._session = session
        self._set: dict[str, NDArray[Any]] = {}
        self.inputs = tuple(tensor.name for tensor in session.get_inputs())
        self._outputs = [tensor.name for tensor in session.get_outputs()]
        self._names = [name.removeprefix(NEXT) for name in self._outputs]

    def set(self, name: str, array: NDArray[Any]) -> None:
        self._set[name] = array

    def write(self, name: str, position: int, array: NDArray[Any]) -> None:
        self._set[name][0, position] = array

    def invoke(self) -> dict[str, NDArray[Any]]:
        return dict(zip(self._names, self._session.run(self._outputs, self._set), strict=True))


class Model:
    """A loaded model file, with arrays as inputs and outputs, by name."""

    def __init__(self, engine: _Engine, runtime: str) -> None:
        self.runtime = runtime
        self._engine = engine
        self._inputs = frozenset(engine.inputs)
        self._held: frozenset[str] = frozenset()

    def hold(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Set inputs that are constant from run to run, such as the keys and values of a photo.

        Interpreters keep the inputs of a graph after a run. Copying them again would add a tenth to the step of a small
        decoder.

        Args:
            inputs: Arrays for some inputs of the signature, of exactly their shapes and types. onnxruntime reads them
                in place, and `write` changes them in place.

        Raises:
            BundleError: An input is unknown or does not fit.
        """
        if not inputs.keys() <= self._inputs:
            raise self._unfit(inputs)
        self._held -= inputs.keys()
        self._set(inputs)
        self._held |= inputs.keys()

    def write(self, name: str, position: int, array: NDArray[Any]) -> None:
        """Overwrite one slice of a held input, without copying the rest.

        Args:
            name: An input (1, T, ...) that is held.
            position: Position of the slice along T.
            array: (...), the slice.

        Raises:
            BundleError: The input is not held, or the slice does not fit it.
        """
        if name not in self._held:
            raise self._unfit({name: array})
        try:
            self._engine.write(name, position, array)
        except self._engine.errors as error:
            raise BundleError("a slice does not fit an input", where=f"{self.runtime}, {name}", found=error) from error

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model once.

        Args:
            inputs: An array for every input that is not held, of exactly its shape and type. The `step` of an ONNX model also
                takes more rows than one, the same number in every input.

        Returns:
            A copy of every output, by name.

        Raises:
            BundleError: An input is missing or does not fit, or the interpreter failed.
        """
        if inputs.keys() | self._held != self._inputs:
            raise self._unfit(inputs)
        self._held -= inputs.keys()
        self._set(inputs)
        try:
            return self._engine.invoke()
        except self._engine.errors as error:
            if ran_out(error):
                raise _no_memory(self.runtime, error) from error
            raise BundleError("the interpreter failed to run a model", where=self.runtime, found=error) from error

    def _set(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        try:
            for name, array in inputs.items():
                self._engine.set(name, array)
        except self._engine.errors as error:
            raise BundleError("the inputs do not fit the model", where=self.runtime, found=error) from error

    def _unfit(self, inputs: Mapping[str, NDArray[Any]]) -> BundleError:
        expected = ", ".join(self._engine.inputs)
        return BundleError("the inputs do not fit the model", expected=expected, found=", ".join(inputs))


def available_runtimes(kind: str = "tflite") -> tuple[str, ...]:
    """Return the runtimes that this process can use for a kind of model file, in order of preference."""
    return tuple(name for name in runtimes_for(kind) if _obstacle(name) is None)


def open_model(data: bytes, signature: str, *, runtime: str = "auto", threads: int = 1) -> Model:
    """Load a verified model into an interpreter.

    Args:
        data: The bytes of a model file that `check_tflite` or `check_onnx` has accepted.
        signature: The signature to run; an ONNX file has one unnamed call.
        runtime: One of `RUNTIMES` that runs this kind of file, or `auto` for the first that is installed.
        threads: Number of threads of the interpreter.

    Raises:
        UsageError: There is no such runtime, no runtime for this kind of file, or less than one thread.
        MissingExtra: The runtime is not installed, or cannot be used in this process.
        BundleError: The interpreter rejects the model.
    """
    if threads < 1:
        raise UsageError("an interpreter needs at least one thread", where="--threads", found=threads)
    runtime = _choose(runtime, model_kind(data))
    module = _import(runtime)
    if runtime == "onnxruntime":
        return _open_onnx(data, module, threads)
    try:
        with warnings.catch_warnings(), _silent_native_code():
            warnings.simplefilter("ignore")  # tensorflow warns of the removal of tf.lite at every start
            interpreter = module.Interpreter(model_content=data, num_threads=threads)
            interpreter.allocate_tensors()
        return Model(_Tflite(interpreter, signature), runtime)
    except _INTERPRETER_ERRORS as error:
        raise _not_accepted(runtime, error, len(data)) from error


def _open_onnx(data: bytes, module: Any, threads: int) -> Model:
    native: list[object] = list(vars(module.capi.onnxruntime_pybind11_state).values())
    own = [kind for kind in native if isinstance(kind, type) and issubclass(kind, Exception)]
    errors: tuple[type[Exception], ...] = (*_INTERPRETER_ERRORS, *own)  # they have no common base class
    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = module.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return Model(_Onnx(session, errors), "onnxruntime")
    except errors as error:
        raise _not_accepted("onnxruntime", error, len(data)) from error


def _no_memory(runtime: str, error: Exception) -> NotEnoughMemory:
    return NotEnoughMemory(
        "there is not enough memory to run the model", where=runtime, found=error, hint="close other programs"
    )


def _not_accepted(runtime: str, error: Exception, size_bytes: int) -> CapPruneError:
    # the verifier has accepted the file, so memory is the likely cause
    if ran_out(error, MODEST_BYTES + 2 * size_bytes):
        return _no_memory(runtime, error)
    return BundleError("the interpreter does not accept a model", where=runtime, found=error)


@contextlib.contextmanager
def _silent_native_code() -> Iterator[None]:
    """Discard what native code writes to stderr meanwhile, such as the delegate in use, which is of no use to users."""
    try:
        saved = os.dup(2)
    except OSError:  # there is no stderr, as under some service managers
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


def _choose(runtime: str, kind: str) -> str:
    able = runtimes_for(kind)
    if runtime == "auto":
        if not (available := available_runtimes(kind)):
            raise _none_available(kind)
        return available[0]
    if runtime not in RUNTIMES:
        raise UsageError(
            "there is no such runtime", where="--runtime", expected=", ".join(("auto", *RUNTIMES)), found=runtime
        )
    if runtime not in able:
        raise UsageError(
            f"this runtime does not run .{kind} models", where="--runtime", expected=", ".join(able), found=runtime
        )
    if obstacle := _obstacle(runtime):
        raise MissingExtra(f"the runtime {runtime} cannot be used", found=obstacle, hint=_remedy(runtime))
    return runtime


def _none_available(kind: str) -> MissingExtra:
    able = runtimes_for(kind)
    unusable = obstacles(kind)
    if unusable:
        found = "; ".join(f"{name} is installed, but {obstacle}" for name, obstacle in unusable.items())
        what = f"no interpreter for .{kind} models can be used"
        return MissingExtra(what, expected=" or ".join(able), found=found, hint=_remedy(next(iter(unusable))))
    what = f"no interpreter for .{kind} models is installed"
    return MissingExtra(what, expected=" or ".join(able), hint=RUNTIMES[able[0]].install)


def obstacles(kind: str = "tflite") -> dict[str, str]:
    """Return why installed runtimes cannot be used in this process, by runtime name."""
    found = {name: _obstacle(name) for name in runtimes_for(kind)}
    return {name: obstacle for name, obstacle in found.items() if obstacle not in (None, _NOT_INSTALLED)}


def _remedy(runtime: str) -> str:
    """Return the command that makes a runtime usable."""
    old_numpy = runtime == "tflite-runtime" and _obstacle(runtime) != _NOT_INSTALLED
    return "pip install 'numpy<2'" if old_numpy else RUNTIMES[runtime].install


def _obstacle(runtime: str) -> str | None:
    """Return why this process cannot use a runtime; None if it can."""
    module = RUNTIMES[runtime].package
    if module not in sys.modules and importlib.util.find_spec(module) is None:
        return _NOT_INSTALLED
    if runtime == "tflite-runtime":
        # Both can be imported, but then fail or corrupt memory when a model is loaded.
        if int(np.__version__.partition(".")[0]) >= 2:
            return f"it needs numpy below 2, and this is {np.__version__}"
        if "tensorflow" in sys.modules:
            return "tensorflow is loaded in this process; use a separate process"
    return None


def _import(runtime: str) -> Any:
    """Return the module that holds the interpreter's class."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it when it is loaded; later versions send telemetry
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(RUNTIMES[runtime].module)
            return module.lite if runtime == "tensorflow" else module
    except (ImportError, OSError, AttributeError, MemoryError) as error:
        if ran_out(error):
            raise _no_memory(runtime, error) from error
        hint = RUNTIMES[runtime].install
        raise MissingExtra(f"the runtime {runtime} cannot be loaded", found=error, hint=hint) from error
