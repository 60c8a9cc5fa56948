"""Whether a file was refused as it should be, or accepted and computed as it says.

refused: ERROR                  the verifier refused it, with an error of the right family
refused by the interpreter      the verifier did not, the interpreter did, and capprune said so
compared                        an interpreter's numbers are those of the reference
not compared: WHY               they cannot be told apart from wrong ones, or the reference cannot say
wrong: WHAT                     anything else: another number, another exception, a wrong family
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from reference import run_reference
from reference_values import MAX_ELEMENTS, Known, OutOfRange, Unknown, real_numbers
from subjects import inputs_for

from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BundleError
from capprune_runtime.tflite.file import TfliteModel

MakeInputs = Callable[[Mapping[str, tuple[tuple[int, ...], str]]], dict[str, Any]]

COMPARED, INTERPRETER = "compared", "refused by the interpreter"
FAILURES = ("wrong", "signal", "hang")
# A number says something when it may be off by less than this share of the largest beside it.
SUBNORMAL = float(np.finfo(np.float32).tiny)  # some runtimes flush what is smaller to zero
TELLING = 0.25


def judged_model(
    data: bytes, model: TfliteModel, key: str, runtime: str = "auto", make_inputs: MakeInputs = inputs_for
) -> str:
    """Run an accepted model in an interpreter and in the reference.

    Args:
        data: The file.
        model: What the verifier read in it.
        key: Its signature.
        runtime: See `open_model`.
        make_inputs: Inputs for shapes and types by name.
    """
    signature = model.signatures[key]
    shapes = {
        name: (model.tensors[index].shape, model.tensors[index].dtype) for name, index in signature.inputs.items()
    }
    if sum(int(np.prod(shape)) for shape, _ in shapes.values()) > MAX_ELEMENTS:
        return "not compared: large inputs"
    inputs = make_inputs(shapes)
    expected, why = _expected(model, {signature.inputs[name]: array for name, array in inputs.items()})
    if expected is None and why.endswith("elements"):
        return f"not compared: {why}"
    try:
        found = open_model(data, key, runtime=runtime).run(inputs)
    except BundleError:
        return INTERPRETER
    if expected is None:
        return f"wrong: the interpreter ran, {why}" if why == "out of range" else f"not compared: {why}"
    real = {name: real_numbers(array, model.tensors[signature.outputs[name]]) for name, array in found.items()}
    return compared({name: expected[index] for name, index in signature.outputs.items()}, real)


def _expected(model: TfliteModel, inputs: dict[int, Any]) -> tuple[dict[int, Known] | None, str]:
    try:
        return run_reference(model, inputs), ""
    except Unknown as error:
        return None, str(error)
    except OutOfRange:
        return None, "out of range"


def compared(expected: Mapping[str, Known], found: Mapping[str, Any]) -> str:
    """Compare what an interpreter gave, by name of the output."""
    telling = total = 0
    for name, known in expected.items():
        if known.value.shape != found[name].shape:
            return f"wrong: {name} has shape {found[name].shape}"
        bounded = np.isfinite(known.error)
        with np.errstate(invalid="ignore"):
            right = np.abs(found[name].astype(np.float64) - known.value) <= known.error + SUBNORMAL
        if (bounded & ~right).any():
            place = int(np.argmax(bounded & ~right))
            numbers = (array.ravel()[place] for array in (found[name], known.value, known.error))
            return "wrong: {} is {:.6g}, not {:.6g} within {:.2g}".format(name, *map(float, numbers))
        total += known.value.size
        telling += int((known.error <= TELLING * max(float(np.abs(known.value).max()), 1e-30)).sum())
    return COMPARED if telling * 2 >= total else "not compared: too much is within tolerance"
