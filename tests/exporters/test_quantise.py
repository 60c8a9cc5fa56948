"""Int8 weights: a quarter of the bytes, in a file that every runtime reads, with an error that is stated."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import quantizer, recipe
from matrix_model import checked, matrix_case, packed, random_matrix
from real_parts import RUNTIMES, Arrays, Case, Part, calibration

from capprune_exporters.quiet import quiet
from capprune_exporters.tflite import quantise
from capprune_exporters.tflite.graph import operator_name, pack, unpack
from capprune_exporters.tflite.quantise import dynamic_int8, static_int8, weight_only_int8
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BadModelFile, ExportError, MissingExtra
from capprune_runtime.tflite.check import check_tflite

# Norm of the error relative to the norm of the output. 127 steps a channel give half a step of 1/127 at most, some
# 0.5 % after two layers; float32 must stay float32.
INT8_ERROR = 0.01
FLOAT_ERROR = 0.006  # the projections are int8 all the same
DYNAMIC_ERROR = 0.03  # activations are rounded as well

STATIC_ERROR = 0.05  # three layers of it

FILTERS, POOLING = ((32, 8, 8, 3), (96, 4, 4, 32)), (4, 9)  # of the tiny encoder


@pytest.mark.parametrize("name", ["int8", "int8 and sparse"])
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.slow_but_for("ai-edge-litert", "tflite-runtime")
def test_weight_only_encoder_stays_close_in_every_interpreter(
    runtime: str, name: str, cases: dict[str, Case], computed: Callable[[str], dict[str, Arrays]]
) -> None:
    errors = _relative_errors(computed(runtime)[name], cases[name].expected)
    assert 0 < max(errors.values()) <= INT8_ERROR


def test_weight_only_encoder_passes_the_verifier_and_takes_a_quarter(encode: Part) -> None:
    data = weight_only_int8(encode.converted)
    model = check_tflite(data, "encoder.tflite", "encode")
    int8 = [tensor for tensor in model.tensors if tensor.dtype == "int8"]
    assert {tensor.shape for tensor in int8} >= {*FILTERS, (64, 96)}
    assert all(tensor.quantisation is not None and tensor.quantisation.scales.size > 1 for tensor in int8)
    assert len(data) < 0.3 * len(encode.converted)


def test_scales_and_biases_are_short_where_filters_are_whole_steps_and_exact_elsewhere(encode: Part) -> None:
    stepped, _ = _stepped(encode)
    for data, short in ((encode.converted, False), (stepped, True)):
        made = weight_only_int8(data)
        exact, found = _biases(data), _biases(made)
        assert len(found) == len(exact) > 0
        int8 = [one for one in check_tflite(made, "encoder.tflite", "encode").tensors if one.dtype == "int8"]
        scales = [np.asarray(one.quantisation.scales, np.float32) for one in int8 if one.quantisation is not None]
        for numbers in (found, scales):
            assert any((one.view(np.uint32) & 0xFFFF).any() for one in numbers) is not short
        assert all(map(np.array_equal, exact, found)) is not short
        for before, after in zip(exact, found, strict=True):
            assert np.abs(after - before).max() <= 2.0**-8 * np.abs(before).max()


def test_sparse_weights_stay_sparse_and_exact_beside_int8_filters(encode: Part) -> None:
    data = weight_only_int8(encode.sparse.data)
    model = check_tflite(data, "encoder.tflite", "encode")
    assert {tensor.shape for tensor in model.tensors if tensor.dtype == "int8"} == {*FILTERS, POOLING}
    sparse = [tensor for tensor in model.tensors if tensor.sparsity is not None]
    assert [(tensor.shape, tensor.dtype) for tensor in sparse] == [((64, 96), "float32")] * 3
    kept = sum(tensor.kept for tensor in encode.sparse.tensors if tensor.form == "densify_float32")
    assert sum(model.stored_values(tensor).size for tensor in sparse) == kept
    assert len(data) < len(weight_only_int8(encode.converted))


def test_weights_that_the_quantizer_puts_behind_the_flatbuffer_are_moved_inside() -> None:
    weight = random_matrix((1024, 512), 0.0)
    data = packed(weight)
    with quiet():
        work = quantizer.Quantizer(bytearray(data))
        work.load_quantization_recipe(recipe.weight_only_wi8_afp32())
        raw = bytes(work.quantize().quantized_model)
    outside = [buffer for buffer in schema.ModelT.InitFromPackedBuf(raw, 0).buffers if buffer.offset > 1]
    assert outside, "the quantizer does so no more; the rewrite can go"
    inside = weight_only_int8(data)
    stored = {bytes(buffer) for buffer in checked(inside).buffers}
    assert {raw[buffer.offset : buffer.offset + buffer.size] for buffer in outside} <= stored
    case = matrix_case(weight, inside)
    errors = _relative_errors(open_model(inside, case.signature).run(case.inputs), case.expected)
    assert 0 < errors["y"] <= INT8_ERROR


def test_same_model_gives_the_same_bytes(encode: Part) -> None:
    assert weight_only_int8(encode.converted) == weight_only_int8(encode.converted)


def test_dynamic_step_is_close_in_litert_and_refused_by_the_verifier(lstm_step: Part) -> None:
    data = dynamic_int8(lstm_step.converted)
    with pytest.raises(BadModelFile, match=r"tflite-runtime 2\.14 computes wrongly"):
        check_tflite(data, "decoder.tflite", "step")
    case = lstm_step.case(data, "step")
    errors = _relative_errors(open_model(data, "step", runtime="ai-edge-litert").run(case.inputs), case.expected)
    assert 0 < max(errors.values()) <= DYNAMIC_ERROR
    assert len(data) < 0.4 * len(lstm_step.converted)


STATIC = ("static", "static and sparse", "dead channels")


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_static_encoder_stays_close_in_every_interpreter(
    runtime: str, name: str, cases: dict[str, Case], computed: Callable[[str], dict[str, Arrays]]
) -> None:
    errors = _relative_errors(computed(runtime)[name], cases[name].expected)
    assert 0 < max(errors.values()) <= STATIC_ERROR


@pytest.mark.parametrize("name", STATIC)
def test_static_encoder_passes_the_verifier_with_float_inputs_and_outputs(name: str, cases: dict[str, Case]) -> None:
    model = check_tflite(cases[name].data, "encoder.tflite", "encode")
    signature = model.signatures["encode"]
    ends = [*signature.inputs.values(), *signature.outputs.values()]
    assert {model.tensors[index].dtype for index in ends} == {"float32"}
    assert {model.tensors[op.inputs[0]].dtype for op in model.operators if op.name == "CONV_2D"} == {"int8"}
    assert {model.tensors[op.outputs[0]].dtype for op in model.operators if op.name == "CONV_2D"} == {"int8"}


def test_static_encoder_computes_the_projections_in_float(cases: dict[str, Case]) -> None:
    model = check_tflite(cases["static"].data, "encoder.tflite", "encode")
    products = [op for op in model.operators if op.name == "FULLY_CONNECTED"]
    assert {model.tensors[op.inputs[0]].dtype for op in products} == {"float32"}
    int8 = {tensor.shape for tensor in model.tensors if tensor.dtype == "int8" and model.is_constant(tensor)}
    assert int8 >= {*FILTERS, (64, 96)}


def test_static_encoder_computes_in_float_what_follows_the_convolutions(cases: dict[str, Case]) -> None:
    model = check_tflite(cases["static"].data, "encoder.tflite", "encode")
    last = max(place for place, op in enumerate(model.operators) if op.name == "CONV_2D")
    behind = [op for op in model.operators[last + 1 :] if op.name != "DEQUANTIZE"]
    assert {"FULLY_CONNECTED", "RESHAPE"} <= {op.name for op in behind}
    assert {model.tensors[index].dtype for op in behind for index in op.outputs} == {"float32"}


def test_ranges_of_activations_leave_out_what_lies_far_out(
    encode: Part, cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases["static and sparse"]
    examples = [{name: value.copy() for name, value in one.items()} for one in calibration(encode)]
    examples[0]["photo"][0, :2, :2] *= 20
    errors = []
    for shares in (quantise._SHARES, np.ones(1)):  # the second: from the smallest to the largest value
        monkeypatch.setattr(quantise, "_SHARES", shares)
        made = static_int8(encode.sparse.data, examples)
        errors.append(sum(_relative_errors(open_model(made, case.signature).run(case.inputs), case.expected).values()))
    assert errors[0] < 0.8 * errors[1]


def test_static_encoder_keeps_the_projections_sparse(encode: Part, cases: dict[str, Case]) -> None:
    model = check_tflite(cases["static and sparse"].data, "encoder.tflite", "encode")
    sparse = [tensor for tensor in model.tensors if tensor.sparsity is not None]
    assert [(tensor.shape, tensor.dtype) for tensor in sparse] == [((64, 96), "float32")] * 3
    assert len(cases["static and sparse"].data) < len(cases["static"].data) < 0.4 * len(encode.converted)


def test_bias_of_a_dead_channel_is_not_cut_off(dead_channels: Part, cases: dict[str, Case]) -> None:
    model = check_tflite(cases["dead channels"].data, "encoder.tflite", "encode")
    first = next(op for op in model.operators if op.name == "CONV_2D")
    bias = model.tensors[first.inputs[2]]
    assert bias.quantisation is not None
    codes, scales = model.stored_values(bias), bias.quantisation.scales
    assert np.allclose(codes[:2] * scales[:2], [1.5, -0.7], rtol=2**-8)  # 8 significant bits
    with quiet():
        work = quantizer.Quantizer(bytearray(dead_channels.converted))
        work.load_quantization_recipe(recipe.static_wi8_ai8())
        raw = work.quantize(work.calibrate({"encode": calibration(dead_channels)})).quantized_model
    biases = [
        np.frombuffer(bytes(found.buffers[tensor.buffer].data), np.int32)
        for found in [schema.ModelT.InitFromPackedBuf(bytes(raw), 0)]
        for tensor in found.subgraphs[0].tensors
        if tensor.type == schema.TensorType.INT32 and tensor.quantization and tensor.quantization.scale is not None
    ]
    assert any((np.abs(values.astype(float)) >= 2**31 - 1).any() for values in biases), "the rewrite can go"


def test_static_int8_without_examples_is_refused(encode: Part) -> None:
    with pytest.raises(ExportError, match="needs examples"):
        static_int8(encode.converted, [])


def test_static_int8_of_the_same_model_gives_the_same_bytes(encode: Part, cases: dict[str, Case]) -> None:
    assert static_int8(encode.sparse.data, calibration(encode)) == cases["static and sparse"].data


@pytest.mark.parametrize("quantise", [weight_only_int8, dynamic_int8])
def test_missing_quantizer_says_what_to_install(
    quantise: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(MissingExtra, match="quantizer is not installed") as caught:
        quantise(b"")
    assert caught.value.hint == "pip install 'capprune[tflite]'"


def test_quantizer_is_silent(encode: Part, capfd: pytest.CaptureFixture[str]) -> None:
    weight_only_int8(encode.converted)
    assert capfd.readouterr() == ("", "")


def _relative_errors(found: Arrays, expected: Arrays) -> dict[str, float]:
    """Of every output that is not zero."""
    assert found.keys() == expected.keys()
    return {
        name: float(np.linalg.norm(found[name] - value) / np.linalg.norm(value))
        for name, value in expected.items()
        if value.any()
    }


@pytest.mark.parametrize("form", ["weight_only_int8", "static_int8"])
def test_channels_of_few_steps_keep_their_steps(encode: Part, form: str) -> None:
    stepped, numbers = _stepped(encode)
    made = weight_only_int8(stepped) if form == "weight_only_int8" else static_int8(stepped, calibration(encode))
    found = unpack(made)
    stored = {tensor.name: tensor for tensor in found.subgraphs[0].tensors if tensor.name in numbers}
    assert len(stored) == len(numbers) == len(FILTERS)
    for name, tensor in stored.items():
        codes, steps = numbers[name]
        held = np.frombuffer(bytes(found.buffers[tensor.buffer].data), np.int8).reshape(codes.shape)
        assert np.array_equal(held, codes)
        assert np.array_equal(np.asarray(tensor.quantization.scale, np.float32), steps)
    case = encode.case(made, "encode")
    expected = open_model(stepped, "encode").run(case.inputs)
    errors = _relative_errors(open_model(made, "encode").run(case.inputs), expected)
    assert max(errors.values()) <= (
        FLOAT_ERROR if form == "weight_only_int8" else 2 * STATIC_ERROR
    )  # of wide activations


def test_static_int8_has_scales_and_biases_of_8_significant_bits(encode: Part, cases: dict[str, Case]) -> None:
    model = check_tflite(cases["static and sparse"].data, "encoder.tflite", "encode")
    scaled = [tensor for tensor in model.tensors if tensor.dtype == "int8" and tensor.quantisation is not None]
    biases = [
        tensor
        for tensor in model.tensors
        if tensor.dtype == "int32" and tensor.quantisation and model.is_constant(tensor)
    ]
    convolutions = [tensor for tensor in scaled if len(tensor.shape) == 4]
    assert len(convolutions) > 4 and len(biases) == 2
    for tensor in convolutions:
        assert _significant_bits(tensor.quantisation.scales).max() <= 8, tensor.name
    for tensor in biases:
        codes = model.stored_values(tensor).astype(np.float64)
        assert _significant_bits(codes[codes != 0]).max() <= 8, tensor.name
        assert np.unique(codes).size > 1


def _significant_bits(values: np.ndarray) -> np.ndarray:
    fractions = (np.abs(np.frexp(np.asarray(values, np.float64))[0]) * 2**53).astype(np.int64)
    return 53 - np.array([(int(one) & -int(one)).bit_length() - 1 for one in fractions])


def _biases(data: bytes) -> list[np.ndarray]:
    model = unpack(data)
    graph, found = model.subgraphs[0], []
    for operator in graph.operators:
        if operator_name(model, operator) in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}:
            index = operator.inputs[2] if len(operator.inputs) > 2 else -1
            if index >= 0:
                found.append(np.frombuffer(bytes(model.buffers[graph.tensors[index].buffer].data), np.float32))
    return found


def _stepped(encode: Part) -> tuple[bytes, dict[bytes, tuple[np.ndarray, np.ndarray]]]:
    """Return the encoder with filters of whole steps, and the codes and steps of each."""
    model = unpack(encode.converted)
    numbers: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    random = np.random.default_rng(5)
    for operator in model.subgraphs[0].operators:
        if operator_name(model, operator) == "CONV_2D":
            tensor = model.subgraphs[0].tensors[operator.inputs[1]]
            steps = np.ldexp(random.integers(128, 256, tensor.shape[0]) / 256, -4).astype(np.float32)
            codes = np.rint(random.normal(0, 3, tuple(tensor.shape))).clip(-20, 20)
            codes.reshape(len(codes), -1)[:, :2] = 1, 7  # no common divisor, and not 127 steps
            values = (codes * steps[:, None, None, None]).astype(np.float32)
            model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
            numbers[tensor.name] = codes, steps
    return pack(model), numbers
