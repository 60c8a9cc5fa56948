"""Int8 encoders: close to torch, right in their outputs, and only in forms that the verifier accepts."""

from __future__ import annotations

import sys

import numpy as np
import onnx_parts
import pytest
from onnx_parts import Parts, largest_error

import onnx
from capprune_exporters.onnx.models import encoder_onnx
from capprune_exporters.onnx.quantise import static_int8, weight_only_int8
from capprune_exporters.onnx.weights import LARGEST_REDUCED_CODE
from capprune_exporters.weight_forms import EncoderWeights
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import ExportError, MissingExtra
from capprune_runtime.onnx.weights import LARGEST_CODE

WEIGHT_ONLY_ERROR, STATIC_ERROR = 0.02, 0.12  # random weights and noise for a photo; captions judge trained ones


def calibration() -> list[onnx_parts.Arrays]:
    generator = np.random.default_rng(3)
    size = onnx_parts.ENCODER.size
    return [{"photo": generator.uniform(-1, 1, (1, size, size, 3)).astype(np.float32)} for _ in range(4)]


def test_weight_only_encoder_is_small_and_close(parts: Parts) -> None:
    data = weight_only_int8(parts.encode.converted)
    onnx_parts.check_encode(data, parts.cell)
    found = open_model(data, "encode").run(parts.encode.arrays)
    assert largest_error(found, parts.encode.expected()) <= WEIGHT_ONLY_ERROR
    assert len(data) < len(parts.encode.converted) * 0.45  # its projections are float32 still


def test_static_encoder_is_small_and_close_with_float_inputs_and_outputs(parts: Parts) -> None:
    data = static_int8(parts.encode.converted, iter(calibration()))
    onnx_parts.check_encode(data, parts.cell)
    found = open_model(data, "encode").run(parts.encode.arrays)
    assert largest_error(found, parts.encode.expected()) <= STATIC_ERROR
    assert "QuantizeLinear" in {node.op_type for node in onnx.load_from_string(data).graph.node}


def test_static_weights_have_seven_bits(lstm: Parts) -> None:
    assert LARGEST_CODE == LARGEST_REDUCED_CODE  # what is written is what is accepted
    model = onnx.load_from_string(static_int8(lstm.encode.converted, calibration()))
    codes = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert codes and max(int(np.abs(array.astype(int)).max()) for array in codes) == LARGEST_CODE


@pytest.mark.parametrize("form", list(EncoderWeights))
def test_sparse_projections_are_gaps_in_every_form(form: str, lstm: Parts) -> None:
    data = encoder_onnx(lstm.encode.converted, form, calibration(), lstm.weights)
    onnx_parts.check_encode(data)
    names = {tensor.name for tensor in onnx.load_from_string(data).graph.initializer}
    assert {"key.weight.gaps", "value.weight.gaps", "initial.weight.gaps"} <= names
    found = open_model(data, "encode").run(lstm.encode.arrays)
    assert largest_error(found, lstm.encode.expected()) <= STATIC_ERROR


def test_quantiser_is_silent_and_leaves_nothing_behind(
    capfd: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    lstm: Parts,
) -> None:
    folder = tmp_path_factory.mktemp("empty")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    static_int8(lstm.encode.converted, calibration())
    assert capfd.readouterr() == ("", "")
    assert list(folder.iterdir()) == []


def test_nothing_to_calibrate_on_is_an_export_error(lstm: Parts) -> None:
    with pytest.raises(ExportError, match="cannot be quantised") as caught:
        static_int8(lstm.encode.converted, [])
    assert caught.value.found == "no photos to calibrate on"


def test_unknown_form_of_the_encoder_is_an_export_error(lstm: Parts) -> None:
    with pytest.raises(ExportError, match="no such form"):
        encoder_onnx(lstm.encode.converted, "float16")


def test_missing_quantiser_says_what_to_install(monkeypatch: pytest.MonkeyPatch, lstm: Parts) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match="quantizer is not installed") as caught:
        static_int8(lstm.encode.converted, calibration())
    assert caught.value.hint == "pip install 'capprune[onnx]'"
