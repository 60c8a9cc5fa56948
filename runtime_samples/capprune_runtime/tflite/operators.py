"""The operators that a captioning model may use, and what each may be given.

An allow-list: what is not here is refused before any interpreter sees it. Numbers are those of the TFLite
schema: `code` of BuiltinOperator, `options_type` of BuiltinOptions, options in the order of their fields.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OptionField:
    """One option: its `struct` code (or `vector`), the range that is accepted, and the schema's default."""

    name: str
    code: str
    low: float
    high: float
    default: int = 0


@dataclass(frozen=True)
class OperatorRule:
    """One operator.

    Args:
        name: The schema's name.
        code: The schema's number.
        least_inputs: How many inputs at least.
        most_inputs: How many at most.
        outputs: How many outputs; 0 for as many as an option says.
        constants: Inputs that decide shapes, so that they must be stored in the file.
        may_omit: The input that may be -1, if any.
        options_type: The schema's number of the options; 0 when there are none.
        options: Their fields.
        needs_options: Whether the kernels divide by or index with an option.
    """

    name: str
    code: int
    least_inputs: int
    most_inputs: int
    outputs: int = 1
    constants: tuple[int, ...] = ()
    may_omit: int | None = None
    options_type: int = 0
    options: tuple[OptionField, ...] = ()
    needs_options: bool = False


_MANY = 256
_FLAG = ("?", 0, 1)
_AXIS = ("i", -5, 4)
_MASK = ("i", 0, 15)
_TYPE = ("b", 0, 127)
_STRIDE = ("i", 1, 4096)

_ACTIVATION = OptionField("activation", "b", 0, 3)  # none, RELU, RELU_N1_TO_1, RELU6; kernels leave a fused TANH out
_NO_ACTIVATION = OptionField("activation", "b", 0, 0)  # where kernels leave any out, without a word
_POT_SCALE = OptionField("pot_scale_int16", *_FLAG, 1)
_WINDOW = (
    OptionField("padding", "b", 0, 1),
    OptionField("stride_w", *_STRIDE),
    OptionField("stride_h", *_STRIDE),
)
_DILATION = (OptionField("dilation_w", *_STRIDE, 1), OptionField("dilation_h", *_STRIDE, 1))
_BIAS_TYPE = OptionField("bias_type", *_TYPE)
_KEEP = (OptionField("keep_dimensions", *_FLAG),)

_RULES = (
    OperatorRule("ADD", 0, 2, 2, options_type=11, options=(_ACTIVATION, _POT_SCALE)),
    OperatorRule(
        "AVERAGE_POOL_2D", 1, 1, 1, options_type=5, needs_options=True,
        options=(*_WINDOW, OptionField("filter_w", *_STRIDE), OptionField("filter_h", *_STRIDE), _ACTIVATION),
    ),
    OperatorRule("BATCH_MATMUL", 126, 2, 2, options_type=101, options=tuple(
        OptionField(name, *_FLAG) for name in ("transpose_x", "transpose_y", "asymmetric_inputs")
    )),
    OperatorRule("BROADCAST_TO", 130, 2, 2, constants=(1,), options_type=104),
    OperatorRule("CAST", 53, 1, 1, options_type=37, options=(
        OptionField("in_type", *_TYPE), OptionField("out_type", *_TYPE)
    )),
    OperatorRule(
        "CONCATENATION", 2, 1, _MANY, options_type=10, needs_options=True,
        options=(OptionField("axis", *_AXIS), _NO_ACTIVATION),
    ),
    OperatorRule(
        "CONV_2D", 3, 2, 3, options_type=1, needs_options=True,
        options=(*_WINDOW, _ACTIVATION, *_DILATION, _BIAS_TYPE),
    ),
    OperatorRule("DENSIFY", 124, 1, 1, options_type=99),
    OperatorRule(
        "DEPTHWISE_CONV_2D", 4, 2, 3, options_type=2, needs_options=True,
        options=(*_WINDOW, OptionField("depth_multiplier", *_STRIDE), _ACTIVATION, *_DILATION),
    ),
    OperatorRule("DEQUANTIZE", 6, 1, 1, options_type=38),
    OperatorRule("DIV", 42, 2, 2, options_type=29, options=(_ACTIVATION,)),
    OperatorRule("EMBEDDING_LOOKUP", 7, 2, 2),
    OperatorRule("EXPAND_DIMS", 70, 2, 2, constants=(1,), options_type=52),
    OperatorRule(
        "FULLY_CONNECTED", 9, 2, 3, may_omit=2, options_type=8, needs_options=True,
        options=(
            _ACTIVATION,
            OptionField("weights_format", "b", 0, 0),  # 1 is a shuffled layout that only some kernels know
            OptionField("keep_dimensions", *_FLAG),
            OptionField("asymmetric_inputs", *_FLAG),
            _BIAS_TYPE,
        ),
    ),
    OperatorRule("GATHER", 36, 2, 2, options_type=23, options=(
        OptionField("axis", *_AXIS), OptionField("batch_dimensions", "i", 0, 0)
    )),
    OperatorRule("LOGISTIC", 14, 1, 1),
    OperatorRule("MAXIMUM", 55, 2, 2, options_type=39),
    OperatorRule("MEAN", 40, 2, 2, constants=(1,), options_type=27, options=_KEEP),
    OperatorRule("MINIMUM", 57, 2, 2, options_type=39),
    OperatorRule("MUL", 18, 2, 2, options_type=21, options=(_ACTIVATION,)),
    OperatorRule("PACK", 83, 1, _MANY, options_type=59, needs_options=True, options=(
        OptionField("values", "i", 1, _MANY), OptionField("axis", *_AXIS)
    )),
    OperatorRule("PAD", 34, 2, 2, constants=(1,), options_type=22),
    OperatorRule("QUANTIZE", 114, 1, 1, options_type=89),
    OperatorRule("RELU", 19, 1, 1),
    OperatorRule("RELU6", 21, 1, 1),
    OperatorRule("RESHAPE", 22, 2, 2, constants=(1,), options_type=17, options=(
        OptionField("new_shape", "vector", 0, 0),
    )),
    OperatorRule("SLICE", 65, 3, 3, constants=(1, 2), options_type=48),
    OperatorRule("SOFTMAX", 25, 1, 1, options_type=9, needs_options=True, options=(
        OptionField("beta", "f", 1, 1),
    )),
    OperatorRule("SPLIT", 49, 2, 2, outputs=0, constants=(0,), options_type=35, needs_options=True, options=(
        OptionField("outputs", "i", 1, _MANY),
    )),
    OperatorRule(
        "STRIDED_SLICE", 45, 4, 4, constants=(1, 2, 3), options_type=32, needs_options=True,
        options=(
            OptionField("begin_mask", *_MASK),
            OptionField("end_mask", *_MASK),
            OptionField("ellipsis_mask", "i", 0, 0),
            OptionField("new_axis_mask", "i", 0, 0),
            OptionField("shrink_axis_mask", *_MASK),
            OptionField("offset", "?", 0, 0),
        ),
    ),
    OperatorRule("SUB", 41, 2, 2, options_type=28, options=(_ACTIVATION, _POT_SCALE)),
    OperatorRule("SUM", 74, 2, 2, constants=(1,), options_type=27, options=_KEEP),
    OperatorRule("TANH", 28, 1, 1),
    OperatorRule("TRANSPOSE", 39, 2, 2, constants=(1,), options_type=26),
    OperatorRule("UNPACK", 88, 1, 1, outputs=0, options_type=64, needs_options=True, options=(
        OptionField("outputs", "i", 1, _MANY), OptionField("axis", *_AXIS)
    )),
)  # fmt: skip
OPERATORS = {rule.name: rule for rule in _RULES}
