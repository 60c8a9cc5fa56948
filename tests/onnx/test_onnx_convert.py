"""torch to ONNX: the same numbers, the names of the bundle format, nothing in the file but what is computed."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import onnx_parts
import pytest
import torch
from onnx_parts import Parts, largest_error
from torch import Tensor, nn

import onnx
from capprune.models.exportable import StepCall
from capprune_exporters.onnx.convert import LONGEST_REASON, convert_onnx
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BundleError, ExportError, MissingExtra
from capprune_runtime.onnx.file import OPSET

FLOAT_ERROR = 2e-6  # other orders of summation in float32


class Decomposition(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"values": torch.linalg.svd(x)[1]}


class WordyFailure(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if torch.compiler.is_exporting():
            raise RuntimeError("no such operator " * 100 + "\nand a listing")
        return {"y": x}


def test_onnxruntime_gives_what_torch_gives(parts: Parts) -> None:
    for part, signature in ((parts.step, "step"), (parts.encode, "encode")):
        model = open_model(part.converted, signature)
        assert model.runtime == "onnxruntime"
        assert largest_error(model.run(part.arrays), part.expected()) <= FLOAT_ERROR


def test_converted_files_pass_the_checker_and_the_verifier(parts: Parts) -> None:
    for part in (parts.step, parts.encode):
        onnx.checker.check_model(onnx.load_from_string(part.converted), full_check=True)
    onnx_parts.check_step(parts.step.converted, parts.cell)
    onnx_parts.check_encode(parts.encode.converted, parts.cell)


def test_rows_of_one_call_are_calls_of_one_row(parts: Parts) -> None:
    step = parts.step.module
    assert isinstance(step, StepCall)
    inputs = {name: value.numpy() for name, value in onnx_parts.step_inputs(step, 3).items()}
    model = open_model(parts.step.converted, "step")
    together = model.run(inputs)
    for row in range(3):
        alone = model.run({name: value[row : row + 1] for name, value in inputs.items()})
        assert largest_error({name: value[row : row + 1] for name, value in together.items()}, alone) <= FLOAT_ERROR


def test_rows_are_free_in_step_and_one_in_encode(parts: Parts) -> None:
    step, encode = (onnx.load_from_string(part.converted).graph for part in (parts.step, parts.encode))
    firsts = {value.type.tensor_type.shape.dim[0].dim_param for value in (*step.input, *step.output)}
    assert len(firsts) == 1 and "" not in firsts
    assert {value.type.tensor_type.shape.dim[0].dim_value for value in (*encode.input, *encode.output)} == {1}


def test_state_outputs_have_names_of_their_own(lstm: Parts) -> None:
    outputs = [value.name for value in onnx.load_from_string(lstm.step.converted).graph.output]
    assert set(outputs) == {"scores", "next_h", "next_c", "attention"}
    assert open_model(lstm.step.converted, "step").run(lstm.step.arrays).keys() == {"scores", "h", "c", "attention"}


def test_file_holds_nothing_but_what_is_computed(lstm: Parts) -> None:
    model = onnx.load_from_string(lstm.step.converted)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert not model.metadata_props and not model.functions and not model.graph.value_info
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not any(tensor.external_data or tensor.data_location for tensor in model.graph.initializer)
    assert str(Path(__file__).parents[2]).encode() not in lstm.step.converted
    assert sum(t.ByteSize() for t in model.graph.initializer) > 0.98 * len(lstm.step.converted)


def test_the_same_model_gives_the_same_bytes(lstm: Parts) -> None:
    step = lstm.step.module
    assert isinstance(step, StepCall)
    assert convert_onnx(step, step.example(), rows=True) == lstm.step.converted


def test_held_inputs_stay_from_run_to_run(lstm: Parts) -> None:
    model, inputs = open_model(lstm.step.converted, "step"), lstm.step.arrays
    expected = model.run(inputs)
    model.hold({name: inputs[name] for name in ("keys", "values")})
    carried = {name: inputs[name] for name in ("token", "h", "c")}
    for _ in range(2):
        assert largest_error(model.run(carried), expected) == 0
    with pytest.raises(BundleError):
        model.run({name: inputs[name] for name in ("token", "h")})


@pytest.mark.parametrize(
    "damage",
    [
        {"token": torch.tensor([7]).numpy()},
        {"token": torch.tensor([onnx_parts.VOCABULARY], dtype=torch.int32).numpy()},
        {"h": torch.zeros(1, onnx_parts.WIDTH + 1).numpy()},
        {"h": torch.zeros(2, onnx_parts.WIDTH).numpy()},
        {"h": torch.zeros(1, onnx_parts.WIDTH, dtype=torch.float64).numpy()},
        {"extra": torch.zeros(1).numpy()},
    ],
)
def test_inputs_that_do_not_fit_are_an_error(damage: onnx_parts.Arrays, lstm: Parts) -> None:
    with pytest.raises(BundleError):
        open_model(lstm.step.converted, "step").run({**lstm.step.arrays, **damage})


def test_converter_is_silent_and_names_what_it_cannot_lower(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match="cannot lower") as caught:
        convert_onnx(Decomposition(), {"x": torch.eye(3)})
    assert caught.value.found is not None and "svd" in caught.value.found
    assert capfd.readouterr() == ("", "")


def test_long_reason_is_cut_to_its_first_line() -> None:
    with pytest.raises(ExportError) as caught:
        convert_onnx(WordyFailure(), {"x": torch.eye(3)})
    assert caught.value.found is not None and caught.value.found.startswith("no such operator")
    assert len(caught.value.found) == LONGEST_REASON + 1 and "\n" not in caught.value.found


def test_missing_package_says_what_to_install_and_other_targets_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("capprune_exporters.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    fresh = importlib.import_module("capprune_exporters.onnx.weights")
    importlib.import_module("capprune_exporters.onnx.models")
    with pytest.raises(MissingExtra, match="exporter is not installed") as caught:
        fresh.make_gapped(b"")
    assert caught.value.hint == "pip install 'capprune[onnx]'"


def test_onnxruntime_is_told_not_to_phone_home(lstm: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    open_model(lstm.step.converted, "step")
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert "onnx" in sys.modules  # the exporter's; test_onnx_bundle tests that the runtime does without
