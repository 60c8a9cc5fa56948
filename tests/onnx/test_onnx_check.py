"""Every rule of the ONNX section of docs/bundle_format.md is broken once, and the file refused by that rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_edit
import onnx_parts
import pytest
from onnx_edit import add, add_stored, attribute, changed, edited, initializer, node, store, values
from onnx_parts import Parts

from capprune_exporters.onnx.quantise import static_int8, weight_only_int8
from capprune_exporters.onnx.weights import make_gapped
from capprune_runtime.errors import BadModelFile
from capprune_runtime.onnx.check import check_onnx
from capprune_runtime.onnx.operators import OPERATORS

SPECIFICATION = Path(__file__).parents[2] / "docs" / "bundle_format.md"


def step_forms(lstm: Parts) -> dict[str, bytes]:
    """A sound decoder in every form."""
    step = lstm.step.converted
    return {
        "dense": step,
        "float32": make_gapped(step, names=lstm.weights).data,
        "int8": make_gapped(step, names=lstm.weights, weights="int8").data,
        "dynamic": make_gapped(step, names=lstm.weights, weights="int8", dynamic=True).data,
        "codebook4": make_gapped(step, names=lstm.weights, weights="codebook4").data,
    }


def encoder_forms(lstm: Parts) -> dict[str, bytes]:
    """A sound encoder in every form."""
    calibration = [lstm.encode.arrays] * 2
    return {
        "dense": lstm.encode.converted,
        "weight_only": weight_only_int8(lstm.encode.converted),
        "static": static_int8(lstm.encode.converted, calibration),
    }


@pytest.fixture(scope="session")
def files(lstm: Parts) -> dict[str, bytes]:
    return step_forms(lstm)


@pytest.fixture(scope="session")
def encoders(lstm: Parts) -> dict[str, bytes]:
    return encoder_forms(lstm)


def test_every_form_is_accepted(files: dict[str, bytes], encoders: dict[str, bytes]) -> None:
    for data in files.values():
        onnx_parts.check_step(data)
    for data in encoders.values():
        onnx_parts.check_encode(data)


def test_the_specification_lists_the_operators_that_are_allowed() -> None:
    section = SPECIFICATION.read_text(encoding="utf-8").split("### 9.2 Model")[1].split("\n### ")[0]
    listed = re.search(r"Operators are of this list.*?:\n((?:  .*\n)+)", section)
    assert listed is not None
    assert sorted(re.findall(r"\w+", listed[1])) == sorted(OPERATORS)


def rewired(operator: str, position: int, name: str, place: int = 0) -> Any:
    def edit(model: Any) -> None:
        node(model, operator, place).input[position] = name

    return edit


def extra_input(operator: str, name: str) -> Any:
    return lambda model: node(model, operator).input.append(name)


def set_attribute(operator: str, name: str, **value: Any) -> Any:
    def edit(model: Any) -> None:
        for field, content in value.items():
            setattr(attribute(model, operator, name), field, content)

    return edit


def new_attribute(operator: str, name: str, value: Any) -> Any:
    return lambda model: node(model, operator).attribute.append(onnx_edit.onnx.helper.make_attribute(name, value))


def operator_at_the_end(operator: str, inputs: list[str], count: int = 1, **attributes: Any) -> Any:
    return lambda model: add(model, operator, inputs, [f"more.{n}" for n in range(count)], **attributes)


def reversed_order(model: Any) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])


def cycle(model: Any) -> None:
    first, second = node(model, "Tanh"), node(model, "Softmax")
    first.input[0] = second.output[0]


def huge_zeros(model: Any) -> None:
    add_stored(model, "huge", np.array([1 << 40]))
    add(model, "ConstantOfShape", ["huge"], ["zeros"])


def huge_product(model: Any) -> None:
    add_stored(model, "column", np.zeros((20_000, 1), np.float32))
    add_stored(model, "row", np.zeros((1, 20_000), np.float32))
    add(model, "MatMul", ["column", "row"], ["square"])


def free_second_dimension(model: Any) -> None:
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "batch"


def other_free_dimension(model: Any) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"


def one_row_in_one_output(model: Any) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


def fixed_rows(model: Any) -> None:
    """The rows are free in what is declared, but an operator holds them at one."""
    add_stored(model, "one_row", np.array([1, onnx_parts.VOCABULARY]))
    output = next(one for one in model.graph.node if "scores" in one.output)
    output.output[0] = "raw"
    add(model, "Reshape", ["raw", "one_row"], ["scores"])


def input_handed_out(model: Any) -> None:
    model.graph.output[1].name = "h"


def renamed_output(model: Any) -> None:
    output = next(one for one in model.graph.node if "scores" in one.output)
    output.output[0] = "result"
    model.graph.output[0].name = "result"


def other_size(model: Any) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = onnx_parts.VOCABULARY + 1


def token_of_64_bits(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 7


def one_output_more(model: Any) -> None:
    model.graph.output.append(model.graph.output[0])


DENSE: dict[str, tuple[Any, str]] = {
    "unknown operator": (operator_at_the_end("Exp", ["h"]), "not allowed"),
    "control flow": (operator_at_the_end("Loop", ["h"]), "not allowed"),
    "random numbers": (operator_at_the_end("RandomNormalLike", ["h"]), "not allowed"),
    "text that is printed": (operator_at_the_end("StringConcat", ["h", "h"]), "not allowed"),
    "operator without a name": (operator_at_the_end("", ["h"]), "not allowed"),
    "too few inputs": (operator_at_the_end("Add", ["h"]), "wrong number of inputs"),
    "too many inputs": (extra_input("Tanh", "h"), "wrong number of inputs"),
    "too many outputs": (operator_at_the_end("Tanh", ["h"], 2), "wrong number of outputs"),
    "more parts than outputs": (set_attribute("Split", "num_outputs", i=2), "wrong number of outputs"),
    "no outputs": (operator_at_the_end("Tanh", ["h"], 0), "wrong number of outputs"),
    "input that is left out": (rewired("Gemm", 0, ""), "never computed"),
    "input that is nowhere": (rewired("Gemm", 0, "nowhere"), "never computed"),
    "operators in the wrong order": (reversed_order, "never computed"),
    "cycle": (cycle, "never computed"),
    "output written twice": (lambda model: add(model, "Tanh", ["h"], ["scores"]), "given twice"),
    "output that overwrites an input": (lambda model: add(model, "Tanh", ["h"], ["h"]), "given twice"),
    "output that overwrites a weight": (
        lambda model: add(model, "Tanh", ["h"], ["decoder.rnn.weight"]),
        "given twice",
    ),
    "input that a stored tensor gives": (lambda model: add_stored(model, "h", np.zeros(1, np.float32)), "given twice"),
    "output without a name": (lambda model: add(model, "Tanh", ["h"], [""]), "empty"),
    "stored tensor that nothing reads": (
        lambda model: add_stored(model, "x", np.zeros(9, np.float32)),
        "nothing reads",
    ),
    "NaN": (changed("decoder.rnn.weight", 100, np.nan), "not a finite number"),
    "infinity": (changed("decoder.rnn.bias", 3, -np.inf), "not a finite number"),
    "attribute that is not known": (new_attribute("Tanh", "alpha", 1.0), "this one is not known"),
    "attribute of another type": (set_attribute("Softmax", "axis", type=1, f=1.0), "type is not allowed"),
    "attribute out of range": (set_attribute("Softmax", "axis", i=9), "not allowed"),
    "attribute that is missing": (lambda model: node(model, "Concat").ClearField("attribute"), "missing"),
    "factor of a product": (set_attribute("Gemm", "alpha", f=2.0), "not allowed"),
    "factor that is not a number": (set_attribute("Gemm", "beta", f=float("nan")), "not allowed"),
    "axis that is not there": (set_attribute("Concat", "axis", i=2), "do not fit"),
    "parts that do not divide": (set_attribute("Split", "axis", i=0), "do not fit"),
    "shapes that do not fit": (rewired("Gemm", 1, "decoder.rnn.weight"), "do not fit"),
    "token where a number is expected": (rewired("Tanh", 0, "token"), "do not fit"),
    "shape that is computed": (rewired("Unsqueeze", 1, "token"), "must be stored"),
    "axes out of range": (changed("val_4", 0, 77), "do not fit"),
    "zeros that fill the memory": (huge_zeros, "too much memory"),
    "numbers that fill the memory": (huge_product, "too much memory"),
    "second dimension free": (free_second_dimension, "does not fit the manifest"),
    "two free dimensions": (other_free_dimension, "does not fit the manifest|differ"),
    "free inputs, one output row": (one_row_in_one_output, "does not fit the manifest|differ"),
    "rows held at one inside": (fixed_rows, "do not fit"),
    "input handed out as an output": (input_handed_out, "not those of the manifest"),
    "output of another name": (renamed_output, "not those of the manifest"),
    "output of another size": (other_size, "does not fit the manifest"),
    "output twice": (one_output_more, "not those of the manifest"),
    "token of 64 bits": (token_of_64_bits, "does not fit the manifest"),
    "no inputs": (lambda model: model.graph.ClearField("input"), "not those of the manifest"),
    "no operators": (lambda model: model.graph.ClearField("node"), "never computed"),
}


@pytest.mark.parametrize("name", DENSE)
def test_model_that_breaks_a_rule_is_refused(name: str, files: dict[str, bytes]) -> None:
    edit, rule = DENSE[name]
    with pytest.raises(BadModelFile, match=rule):
        onnx_parts.check_step(edited(files["dense"], edit))


def first_gap_too_long(model: Any) -> None:
    gaps = values(model, "rnn.weight.gaps")
    gaps[:] = 255
    store(model, "rnn.weight.gaps", gaps)


def stretched(name: str, size: int) -> Any:
    return lambda model: store(model, name, np.resize(values(model, name), size))


def scalar(name: str, value: float) -> Any:
    return lambda model: store(model, name, np.array(value, np.float32))


def ones_for_zeros(model: Any) -> None:
    tensor = onnx_edit.onnx.numpy_helper.from_array(np.ones(1, np.float32))
    new_attribute("ConstantOfShape", "value", tensor)(model)


def computed_places(model: Any) -> None:
    """Places that come from the tokens: what a photo's words are would decide where is written."""
    scatter = node(model, "ScatterElements")
    scatter.input[1] = "token"


FORMS: dict[str, tuple[str, Any, str]] = {
    "gaps that lead out of the tensor": ("int8", first_gap_too_long, "out of the tensor"),
    "last gap one too long": (
        "int8",
        lambda model: store(model, "rnn.weight.size", values(model, "rnn.weight.size") * 0 + 100),
        "out of the tensor|do not fit",
    ),
    "two gaps to one place": ("int8", changed("rnn.weight.gaps", 5, 0), "two lead to one place"),
    "more gaps than values": ("int8", stretched("rnn.weight.gaps", 100), "do not fit"),
    "more values than gaps": ("int8", stretched("rnn.weight.codes", 9000), "do not fit"),
    "gaps backwards": ("int8", new_attribute("CumSum", "reverse", 1), "not allowed"),
    "gaps without the last": ("int8", new_attribute("CumSum", "exclusive", 1), "not allowed"),
    "places along another axis": ("int8", changed("first_axis", 0, 1), "do not fit"),
    "values that are added": ("int8", new_attribute("ScatterElements", "reduction", "add"), "not allowed"),
    "scattered along another axis": ("int8", new_attribute("ScatterElements", "axis", 1), "not allowed"),
    "ones instead of zeros": ("int8", ones_for_zeros, "not allowed"),
    "zeros of no size": ("int8", changed("rnn.weight.size", 0, 0), "do not fit"),
    "zeros of a negative size": ("int8", changed("rnn.weight.size", 0, -5), "do not fit"),
    "shape of another size": ("int8", changed("rnn.weight.shape", 0, 3), "do not fit"),
    "places from tokens": ("int8", computed_places, "do not fit|zeros"),
    "values from an input": ("float32", rewired("ScatterElements", 2, "h"), "do not fit"),
    "gaps of another type": (
        "int8",
        lambda model: store(model, "rnn.weight.gaps", values(model, "rnn.weight.gaps").astype(np.int32)),
        "do not fit",
    ),
    "gaps read by another operator": (
        "int8",
        lambda model: add(model, "Reshape", ["rnn.weight.places", "rnn.weight.shape"], ["x"]),
        "do not fit|wrong operator",
    ),
    "zeros read by another operator": ("int8", operator_at_the_end("Tanh", ["rnn.weight.zeros"]), "wrong operator"),
    "codes read by another operator": ("int8", operator_at_the_end("Tanh", ["rnn.weight.numbers"]), "wrong operator"),
    "scale of zero": ("int8", scalar("rnn.weight.scale", 0), "not a positive number"),
    "negative scale": ("int8", scalar("rnn.weight.scale", -0.01), "not a positive number"),
    "subnormal scale": ("int8", scalar("rnn.weight.scale", 1e-40), "not a positive number"),
    "scale that is not a number": ("int8", scalar("rnn.weight.scale", np.nan), "not a finite"),
    "infinite scale": ("int8", scalar("rnn.weight.scale", np.inf), "not a finite"),
    "two scales": (
        "int8",
        lambda model: store(model, "output.weight.scale", np.ones(onnx_parts.WIDTH, np.float32)),
        "one stored scale",
    ),
    "scale from an input": ("int8", rewired("Mul", 1, "h"), "do not fit|one stored scale"),
    "code of -128": ("int8", changed("rnn.weight.codes", 7, -128), "-128"),
    "code outside its table": ("codebook4", changed("rnn.weight.codes", 7, 200), "outside its table"),
    "table that is computed": (
        "codebook4",
        rewired("Gather", 0, "output.weight"),
        "do not fit|never computed|stored table",
    ),
    "cast of an input": ("int8", operator_at_the_end("Cast", ["token"], to=1), "only stored numbers"),
    "cast to another type": ("int8", set_attribute("Cast", "to", i=6), "do not fit"),
    "weight of 8 bits in a product": ("dynamic", changed("output.weight.codes", 7, 65), "7 bits"),
    "weight of -128 in a product": ("dynamic", changed("output.weight.codes", 7, -128), "7 bits"),
    "numbers and zero point mixed up": ("dynamic", rewired("MatMulInteger", 0, "token"), "do not fit"),
    "product without a zero point": (
        "dynamic",
        lambda model: node(model, "MatMulInteger").input.pop(),
        "wrong number of inputs",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_weights_that_break_a_rule_are_refused(name: str, files: dict[str, bytes]) -> None:
    form, edit, rule = FORMS[name]
    with pytest.raises(BadModelFile, match=rule):
        onnx_parts.check_step(edited(files[form], edit))


def stored_like(model: Any, ending: str, shape: tuple[int, ...] | None = None) -> str:
    """The first stored tensor whose name ends so."""
    return next(
        str(tensor.name)
        for tensor in model.graph.initializer
        if tensor.name.endswith(ending) and (shape is None or tuple(tensor.dims) == shape)
    )


def first(ending: str, value: float, shape: tuple[int, ...] | None = None) -> Any:
    return lambda model: changed(stored_like(model, ending, shape), 0, value)(model)


def one_scale_less(model: Any) -> None:
    name = stored_like(model, "first.weight_scale")
    store(model, name, values(model, name)[:-1])


ENCODERS: dict[str, tuple[str, Any, str]] = {
    "kernel of another size": (
        "dense",
        lambda model: attribute(model, "Conv", "kernel_shape").ints.__setitem__(0, 9),
        "do not fit",
    ),
    "stride of zero": (
        "dense",
        lambda model: attribute(model, "Conv", "strides").ints.__setitem__(0, 0),
        "not allowed",
    ),
    "negative padding": (
        "dense",
        lambda model: attribute(model, "Conv", "pads").ints.__setitem__(0, -1),
        "not allowed",
    ),
    "padding that fills the memory": (
        "dense",
        lambda model: attribute(model, "Conv", "pads").ints.__setitem__(0, 60_000),
        "do not fit",
    ),
    "padding by itself": ("dense", set_attribute("Conv", "auto_pad", s=b"SAME_UPPER"), "not allowed"),
    "groups that do not divide": ("dense", set_attribute("Conv", "group", i=7), "do not fit"),
    "bias of another size": (
        "dense",
        rewired("Conv", 2, "model.encoder.network.second.weight"),
        "do not fit|nothing reads",
    ),
    "limits in the wrong order": (
        "dense",
        lambda model: node(model, "Clip").input.reverse(),
        "do not fit|must be stored",
    ),
    "order that is none": (
        "dense",
        lambda model: attribute(model, "Transpose", "perm").ints.__setitem__(0, 1),
        "do not fit",
    ),
    "shape with a zero": ("dense", lambda model: changed(node(model, "Reshape").input[1], 1, 0)(model), "do not fit"),
    "shape of another size": (
        "dense",
        lambda model: changed(node(model, "Reshape").input[1], 1, 7)(model),
        "do not fit",
    ),
    "scale of zero": ("static", first("_scale", 0, ()), "not a positive number"),
    "subnormal scale of a channel": ("static", first("first.weight_scale", 1e-39), "not a positive number"),
    "one scale too few": ("static", one_scale_less, "do not fit"),
    "zero point of weights": ("static", first("first.weight_zero_point", 3), "must be 0"),
    "weight of 8 bits": ("static", first("first.weight_quantized", 100), "7 bits"),
    "axis that is not there": ("static", set_attribute("DequantizeLinear", "axis", i=5), "do not fit"),
    "scale of a channel of zero": ("weight_only", first(".scales", 0), "not a positive number"),
    "code of -128": ("weight_only", first(".codes", -128), "-128"),
    "free rows": (
        "dense",
        lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", "batch"),
        "does not fit the manifest",
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_that_breaks_a_rule_is_refused(name: str, encoders: dict[str, bytes]) -> None:
    form, edit, rule = ENCODERS[name]
    with pytest.raises(BadModelFile, match=rule):
        onnx_parts.check_encode(edited(encoders[form], edit))


def test_error_names_the_operator_and_its_byte(files: dict[str, bytes]) -> None:
    edit, _ = DENSE["shapes that do not fit"]
    with pytest.raises(BadModelFile, match=r"decoder\.onnx, operator 0 \('Gemm'\), byte \d+"):
        onnx_parts.check_step(edited(files["dense"], edit))


def test_name_from_the_file_cannot_write_to_the_terminal(files: dict[str, bytes]) -> None:
    def edit(model: Any) -> None:
        initializer(model, "decoder.rnn.bias").name = "\x1b[2J"

    with pytest.raises(BadModelFile) as caught:
        onnx_parts.check_step(edited(files["dense"], edit))
    assert "\x1b" not in str(caught.value)


def test_one_row_may_be_fixed(lstm: Parts) -> None:
    def fix(model: Any) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1

    onnx_parts.check_step(edited(lstm.step.converted, fix))


def test_models_in_each_others_place_are_refused(lstm: Parts, gru: Parts) -> None:
    with pytest.raises(BadModelFile, match="not those of the manifest"):
        onnx_parts.check_encode(lstm.step.converted)
    with pytest.raises(BadModelFile, match="not those of the manifest"):
        check_onnx(gru.step.converted, "f", *onnx_parts.step_signature("lstm"), rows=True)
