"""The converter: named signatures, silence, and short reasons when it cannot."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
import torch
from real_parts import Part, largest_error
from torch import Tensor, nn

from capprune_exporters.tflite.convert import LONGEST_REASON, convert
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import CapPruneError, ExportError, MissingExtra
from capprune_runtime.tflite.check import check_tflite

FLOAT_ERROR = 1e-5  # relative to the largest value


class Decomposition(nn.Module):
    """Has no counterpart among the runtime's operators."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"values": torch.linalg.svd(x)[1]}


class WordyFailure(nn.Module):
    """Fails with pages of text, as torch and MLIR do."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        raise RuntimeError("\n\n" + "no such operator " * 1000 + "\nand its graph\n" * 1000)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [("lstm_step", {"scores", "h", "c", "attention"}), ("gru_step", {"scores", "h", "attention"})],
)
def test_dense_step_has_the_modules_names_and_values(
    name: str, outputs: set[str], request: pytest.FixtureRequest
) -> None:
    part: Part = request.getfixturevalue(name)
    model = check_tflite(part.converted, "step.tflite", "step")
    assert set(model.signatures["step"].inputs) == set(part.inputs)
    assert set(model.signatures["step"].outputs) == outputs
    assert model.tensors[model.signatures["step"].inputs["token"]].dtype == "int32"
    case = part.case(part.converted, "step")
    assert largest_error(open_model(part.converted, "step").run(case.inputs), case.expected) <= FLOAT_ERROR


def test_encoder_takes_a_photo_with_channels_last(encode: Part) -> None:
    model = check_tflite(encode.converted, "encoder.tflite", "encode")
    signature = model.signatures["encode"]
    assert model.tensors[signature.inputs["photo"]].shape == (1, 96, 96, 3)
    shapes = {name: model.tensors[index].shape for name, index in signature.outputs.items()}
    assert shapes == {"keys": (1, 4, 64), "values": (1, 4, 64), "h": (1, 64), "c": (1, 64)}


def test_converter_is_silent_and_leaves_nothing_behind(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ExportError):
        convert(Decomposition(), "values", {"x": torch.eye(3)})
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_graph_without_a_lowering_is_an_export_error_that_names_the_operator() -> None:
    with pytest.raises(ExportError, match="cannot lower `values`") as caught:
        convert(Decomposition(), "values", {"x": torch.eye(3)})
    assert caught.value.found == "Lowering not found: aten._linalg_svd.default"
    assert caught.value.exit_code == 6


def test_long_reason_is_cut_to_its_first_line() -> None:
    with pytest.raises(ExportError) as caught:
        convert(WordyFailure(), "values", {"x": torch.eye(3)})
    assert caught.value.found is not None and caught.value.found.startswith("no such operator no such")
    assert len(caught.value.found) == LONGEST_REASON + 1
    assert "\n" not in caught.value.found


def test_missing_converter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(MissingExtra, match="converter is not installed") as caught:
        convert(nn.ReLU(), "x", {"input": torch.zeros(1)})
    assert caught.value.hint == "pip install 'capprune[tflite]'"


def test_full_disk_is_no_fault_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("litert_torch.signature", full)
    with pytest.raises(CapPruneError, match="the disk is full") as caught:
        convert(nn.ReLU(), "x", {"input": torch.zeros(1)})
    assert caught.value.exit_code == 1
