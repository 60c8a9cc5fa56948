"""The parts of decoders with attention pass both verifiers, and every runtime computes what torch computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import decoder_forms
import numpy as np
import pytest
import real_parts
import torch
from decoder_forms import FORMS
from real_parts import Arrays, Case, largest_error
from torch import Tensor, nn

from capprune_exporters.onnx.convert import convert_onnx
from capprune_exporters.onnx.quantise import static_int8 as onnx_static_int8
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.quantise import static_int8
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BundleError
from capprune_runtime.formats import NEXT, Signature
from capprune_runtime.onnx.check import check_onnx
from capprune_runtime.tflite.check import check_tflite

FLOAT_ERROR = 1e-5  # relative to the largest value


def expected(module: nn.Module, inputs: dict[str, Tensor]) -> Arrays:
    with torch.inference_mode():
        return {name: value.numpy() for name, value in module(**inputs).items()}


def arrays(inputs: dict[str, Tensor]) -> Arrays:
    return {name: value.numpy() for name, value in inputs.items()}


@pytest.fixture(scope="module")
def tflite_cases() -> dict[str, Case]:
    found = {}
    for name in FORMS:
        module, inputs = decoder_forms.form(name)
        data = convert(module, "run", inputs)
        found[name] = Case(data, "run", arrays(inputs), expected(module, inputs))
    return found


@pytest.fixture(scope="module")
def outputs(
    tflite_cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Arrays]]:
    @cache
    def computed(runtime: str) -> dict[str, Arrays]:
        if not real_parts.installed(runtime):
            pytest.skip(f"{runtime} is not installed")
        return real_parts.outputs_of(tflite_cases, runtime, tmp_path_factory.mktemp(runtime))

    return computed


@pytest.mark.parametrize("name", FORMS)
def test_tflite_verifier_accepts_it(name: str, tflite_cases: dict[str, Case]) -> None:
    check_tflite(tflite_cases[name].data, "f", "run")


@pytest.mark.parametrize("runtime", real_parts.RUNTIMES)
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.slow_but_for("ai-edge-litert", "tflite-runtime")
def test_tflite_runtimes_compute_what_torch_computes(
    name: str, runtime: str, tflite_cases: dict[str, Case], outputs: Callable[[str], dict[str, Arrays]]
) -> None:
    assert largest_error(outputs(runtime)[name], tflite_cases[name].expected) < FLOAT_ERROR


def onnx_form(name: str) -> tuple[bytes, nn.Module]:
    module, inputs = decoder_forms.form(name)
    data = convert_onnx(module, inputs, rows=True)
    given = signature(arrays(inputs))
    made = {NEXT + key if key in inputs else key: value for key, value in expected(module, inputs).items()}
    check_onnx(data, "f", given, signature(made), rows=True)
    return data, module


def signature(values: Arrays) -> Signature:
    return {name: (value.shape, str(value.dtype)) for name, value in values.items()}


@pytest.mark.parametrize("name", FORMS)
def test_onnx_verifier_accepts_it_and_onnxruntime_computes_every_row(name: str) -> None:
    data, module = onnx_form(name)
    model = open_model(data, "run")
    for rows in (1, 3):
        inputs = decoder_forms.inputs(name, rows)
        assert largest_error(model.run(arrays(inputs)), expected(module, inputs)) < FLOAT_ERROR


@pytest.mark.parametrize("position", [decoder_forms.STEPS, -1, 1 << 30])
def test_position_outside_of_the_cache_is_an_error_of_the_interpreter(
    position: int, tflite_cases: dict[str, Case]
) -> None:
    case = tflite_cases["transformer"]
    model = open_model(case.data, "run")
    with pytest.raises(BundleError):
        model.run({**case.inputs, "position": np.array([position], np.int32)})


def test_steps_behind_the_position_are_not_looked_at(tflite_cases: dict[str, Case]) -> None:
    case = tflite_cases["transformer"]
    position = int(case.inputs["position"][0])
    later: dict[str, Any] = {key: case.inputs[key].copy() for key in ("keys", "values")}
    for cached in later.values():
        cached[:, position:] = 1e4
    model = open_model(case.data, "run")
    first, second = model.run(case.inputs), model.run({**case.inputs, **later})
    assert all(np.array_equal(first[key], second[key]) for key in first)


INT8_ERROR = 0.3  # of random weights on random photos: a few steps of 1 in 128, which the normalisation enlarges


def test_static_int8_leaves_attention_behind_convolutions_in_float(tflite_cases: dict[str, Case]) -> None:
    case = tflite_cases["encoder"]
    photos = [arrays(decoder_forms.inputs("encoder")) for _ in range(4)]
    model = check_tflite(data := static_int8(case.data, photos), "f", "run")
    types = {operator.name: model.tensors[operator.outputs[0]].dtype for operator in model.operators}
    assert (types["CONV_2D"], types["SOFTMAX"], types["BATCH_MATMUL"], types["SQRT"]) == ("int8", *["float32"] * 3)
    weights = [model.tensors[one.inputs[1]] for one in model.operators if one.name == "FULLY_CONNECTED"]
    assert weights and not any(model.is_constant(weight) for weight in weights)  # each comes from int8 by a DEQUANTIZE
    assert largest_error(open_model(data, "run").run(case.inputs), case.expected) < INT8_ERROR


def test_onnx_static_int8_leaves_attention_behind_convolutions_in_float() -> None:
    module, inputs = decoder_forms.form("encoder")
    photos = [arrays(decoder_forms.inputs("encoder")) for _ in range(4)]
    data = onnx_static_int8(convert_onnx(module, inputs), photos)
    made = expected(module, inputs)
    model = check_onnx(data, "f", signature(arrays(inputs)), signature(made), rows=False)
    assert [one.operator for one in model.nodes].count("QuantizeLinear") > 0
    assert not any(tensor.dtype == "uint8" and tensor.shape for tensor in model.initializers.values())
    assert largest_error(open_model(data, "run").run(arrays(inputs)), made) < INT8_ERROR


class Unsafe(nn.Module):
    """What the recommended forms avoid."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("table", torch.randn(decoder_forms.STEPS, 4))

    def forward(self, x: Tensor, position: Tensor) -> dict[str, Tensor]:
        steps = torch.arange(4, dtype=torch.int32)
        if self.kind == "comparison":
            return {"y": torch.where(steps <= position, x, torch.zeros(4))}
        if self.kind == "index":
            return {"y": x + self.table[position]}
        return {"y": x + torch.softmax(x.reshape(4, 1), 0).reshape(1, 4)}


@pytest.mark.parametrize("kind", ["comparison", "index", "softmax of the first axis"])
def test_other_forms_are_refused(kind: str) -> None:
    inputs = {"x": torch.randn(1, 4), "position": torch.tensor([2], dtype=torch.int32)}
    with pytest.raises(BundleError, match="not allowed"):
        check_tflite(convert(Unsafe(kind).eval(), "run", inputs), "f", "run")
