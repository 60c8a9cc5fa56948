"""The forms of an operator: which types it may read and write, and which of its inputs are stored.

Runtimes have kernels for more forms than exporters write. They crash on some of these or disagree about them: a
depthwise convolution without a bias, float32 with int8 weights, integer division. So `operators.json` lists the forms
that exporters write, and every other form is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from capprune_runtime.tflite.file import Operator, Tensor, TfliteModel
from capprune_runtime.tflite.operators import OPERATORS

_ANY_NUMBER = " ..."
_PER_CHANNEL = " per channel"


@dataclass(frozen=True)
class _Operand:
    """One input of a form; `place` is stored, computed, or empty for either. `dtype` is none for an omitted input."""

    dtype: str
    place: str
    sparse: bool
    per_channel: bool

    def fits(self, model: TfliteModel, index: int) -> bool:
        if index < 0 or self.dtype == "none":
            return index < 0 and self.dtype == "none"
        tensor = model.tensors[index]
        return (
            tensor.dtype == self.dtype
            and self.place in ("", _place(model, tensor))
            and (tensor.sparsity is not None) == self.sparse
            and _scales(tensor) in (0, 1, _channels(tensor) if self.per_channel else 1)
        )


@dataclass(frozen=True)
class _Form:
    inputs: tuple[_Operand, ...]
    repeated: bool
    output: str

    def fits(self, model: TfliteModel, operator: Operator) -> bool:
        inputs = self.inputs * len(operator.inputs) if self.repeated else self.inputs
        return (
            len(inputs) == len(operator.inputs)
            and all(one.fits(model, index) for one, index in zip(inputs, operator.inputs, strict=True))
            and all(model.tensors[index].dtype == self.output for index in operator.outputs)
        )


def form_fits(model: TfliteModel, operator: Operator) -> bool:
    """Return whether an operator has one of the forms of its name.

    Args:
        model: The file; every tensor of the operator exists.
        operator: One of `operators.OPERATORS`.
    """
    return any(form.fits(model, operator) for form in _forms(operator.name))


def form_of(model: TfliteModel, operator: Operator) -> str:
    """Return the form of an operator in the notation of `operators.json`."""
    inputs = ("none" if index < 0 else _described(model, model.tensors[index]) for index in operator.inputs[:4])
    return f"{', '.join(inputs)} -> {model.tensors[operator.outputs[0]].dtype}"


@cache
def _forms(name: str) -> tuple[_Form, ...]:
    return tuple(map(_parsed, OPERATORS[name].forms))


def _parsed(form: str) -> _Form:
    inputs, _, output = form.partition(" -> ")
    repeated = inputs.endswith(_ANY_NUMBER)
    return _Form(tuple(map(_operand, inputs.removesuffix(_ANY_NUMBER).split(", "))), repeated, output)


def _operand(text: str) -> _Operand:
    *before, dtype = text.removesuffix(_PER_CHANNEL).split(" ")
    place = next((word for word in before if word != "sparse"), "")
    return _Operand(dtype, place, "sparse" in before, text.endswith(_PER_CHANNEL))


def _place(model: TfliteModel, tensor: Tensor) -> str:
    return "stored" if model.is_constant(tensor) else "computed"


def _scales(tensor: Tensor) -> int:
    return 0 if tensor.quantisation is None else tensor.quantisation.scales.size


def _channels(tensor: Tensor) -> int:
    axis = 0 if tensor.quantisation is None else tensor.quantisation.axis
    return tensor.shape[axis] if 0 <= axis < len(tensor.shape) else 1


def _described(model: TfliteModel, tensor: Tensor) -> str:
    sparse = "sparse " if tensor.sparsity is not None else ""
    return f"{_place(model, tensor)} {sparse}{tensor.dtype}{_PER_CHANNEL if _scales(tensor) > 1 else ''}"
