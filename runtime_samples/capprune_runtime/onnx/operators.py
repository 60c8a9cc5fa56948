"""Allowed ONNX operators, of opset 20: their numbers of inputs and outputs, and the ranges of their attributes.

Every other operator is refused: control flow, functions, anything that reads files or generates random numbers, and
operators that no exported model has needed so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

_LARGE = 1 << 16
_RANK = 6


@dataclass(frozen=True)
class Int:
    """A whole number in a range; without a default it is required."""

    low: int
    high: int
    default: int | None = None


@dataclass(frozen=True)
class Ints:
    """A list of `least` to `most` whole numbers, each in a range."""

    least: int
    most: int
    low: int
    high: int


@dataclass(frozen=True)
class Exactly:
    """The only value accepted for an optional attribute."""

    value: float | str


@dataclass(frozen=True)
class OneOf:
    """The texts accepted for an optional attribute."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Real:
    """The range of an optional number."""

    low: float
    high: float


@dataclass(frozen=True)
class ZeroTensor:
    """A stored float32 tensor with one element, which is 0."""


AttributeRule: TypeAlias = Int | Ints | Real | Exactly | OneOf | ZeroTensor


@dataclass(frozen=True)
class OperatorRule:
    """The accepted forms of one operator.

    Attributes:
        inputs: The smallest and largest number; none may be omitted by an empty name.
        outputs: Their number; 0 if the attribute `num_outputs` sets it.
        attributes: Accepted attributes, by name.
        stored: Positions of inputs that determine a shape or the reading of numbers, and so must be stored tensors.
    """

    inputs: tuple[int, int]
    outputs: int = 1
    attributes: Mapping[str, AttributeRule] = field(default_factory=dict)
    stored: tuple[int, ...] = ()


_AXIS = Int(-_RANK, _RANK - 1)
_FLAG = Int(0, 1, 0)
_REDUCE = OperatorRule((2, 2), attributes={"keepdims": Int(0, 1, 1), "noop_with_empty_axes": Exactly(0)}, stored=(1,))
_TWO = OperatorRule((2, 2))
_ONE = OperatorRule((1, 1))

OPERATORS: Mapping[str, OperatorRule] = {
    "Add": _TWO,
    "Cast": OperatorRule((1, 1), attributes={"to": Int(1, 7)}),
    "Clip": OperatorRule((2, 3), stored=(1, 2)),
    "Concat": OperatorRule((1, 1000), attributes={"axis": _AXIS}),
    "ConstantOfShape": OperatorRule((1, 1), attributes={"value": ZeroTensor()}, stored=(0,)),
    "Conv": OperatorRule(
        (2, 3),
        attributes={
            "auto_pad": Exactly("NOTSET"),
            "dilations": Ints(2, 2, 1, _LARGE),
            "group": Int(1, _LARGE, 1),
            "kernel_shape": Ints(2, 2, 1, _LARGE),
            "pads": Ints(4, 4, 0, _LARGE),
            "strides": Ints(2, 2, 1, _LARGE),
        },
    ),
    "CumSum": OperatorRule((2, 2), attributes={"exclusive": Exactly(0), "reverse": Exactly(0)}, stored=(1,)),
    "DequantizeLinear": OperatorRule((3, 3), attributes={"axis": Int(-_RANK, _RANK - 1, 1)}, stored=(1, 2)),
    "Div": _TWO,
    "DynamicQuantizeLinear": OperatorRule((1, 1), outputs=3),
    "Gather": OperatorRule((2, 2), attributes={"axis": Exactly(0)}),
    "Gelu": OperatorRule((1, 1), attributes={"approximate": OneOf(("none", "tanh"))}),
    "Gemm": OperatorRule(
        (2, 3), attributes={"alpha": Exactly(1.0), "beta": Exactly(1.0), "transA": _FLAG, "transB": _FLAG}
    ),
    "LayerNormalization": OperatorRule(
        (3, 3),
        attributes={"axis": Exactly(-1), "epsilon": Real(1e-13, 1.0), "stash_type": Exactly(1)},
        stored=(1, 2),
    ),
    "Log": _ONE,
    "MatMul": _TWO,
    "MatMulInteger": OperatorRule((3, 3), stored=(1,)),
    "MaxPool": OperatorRule(
        (1, 1),
        attributes={
            "auto_pad": Exactly("NOTSET"),
            "ceil_mode": Exactly(0),
            "dilations": Ints(2, 2, 1, 1),
            "kernel_shape": Ints(2, 2, 1, _LARGE),
            "pads": Ints(4, 4, 0, _LARGE),
            "storage_order": Exactly(0),
            "strides": Ints(2, 2, 1, _LARGE),
        },
    ),
    "Mul": _TWO,
    "QuantizeLinear": OperatorRule((3, 3), attributes={"axis": Int(-_RANK, _RANK - 1, 1)}, stored=(1, 2)),
    "ReduceMean": _REDUCE,
    "ReduceSum": _REDUCE,
    "Relu": _ONE,
    "Reshape": OperatorRule((2, 2), attributes={"allowzero": _FLAG}, stored=(1,)),
    "ScatterElements": OperatorRule((3, 3), attributes={"axis": Exactly(0), "reduction": Exactly("none")}),
    "Sigmoid": _ONE,
    "Softmax": OperatorRule((1, 1), attributes={"axis": Int(-_RANK, _RANK - 1, -1)}),
    "Split": OperatorRule((1, 1), outputs=0, attributes={"axis": Int(-_RANK, _RANK - 1, 0), "num_outputs": Int(1, 64)}),
    "Sqrt": _ONE,
    "Squeeze": OperatorRule((2, 2), stored=(1,)),
    "Sub": _TWO,
    "Tanh": _ONE,
    "Transpose": OperatorRule((1, 1), attributes={"perm": Ints(1, _RANK, 0, _RANK - 1)}),
    "Unsqueeze": OperatorRule((2, 2), stored=(1,)),
}
