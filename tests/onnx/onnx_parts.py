"""A small captioning model of the real classes with random weights, most of them zero, as torch and as ONNX files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "worlds"))
from made_once import bytes_once

from capprune.config.encoder import EncoderConfig
from capprune.models.caption_model import CaptionModel, GridEncoder, region_count
from capprune.models.encoder import Encoder
from capprune.models.exportable import EncodeCall, StepCall
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune_exporters.onnx.convert import convert_onnx
from capprune_runtime.formats import Signature
from capprune_runtime.onnx.check import check_onnx
from capprune_runtime.onnx.file import OnnxModel

WIDTH, FEATURES, VOCABULARY = 64, 96, 300
ENCODER = EncoderConfig(size=96, grid=2)  # 3 x 3 cells of 32 pixels, pooled to 4 regions
REGIONS = region_count(ENCODER)
SPARSITY = 0.95

Cell = Literal["lstm", "gru"]
Arrays = dict[str, NDArray[Any]]


class TinyNetwork(Encoder):
    """Stands where EfficientNet-Lite0 stands: 32 pixels a cell."""

    channels, stride = FEATURES, 32
    mean, scale = (127.0,) * 3, (128.0,) * 3

    def __init__(self) -> None:
        super().__init__(ENCODER)
        self.first, self.second = nn.Conv2d(3, 32, 8, stride=8), nn.Conv2d(32, FEATURES, 4, stride=4)

    @classmethod
    def pretrained(cls, config: EncoderConfig) -> TinyNetwork:
        return cls()

    def before(self, photo: Tensor, blocks: int) -> Tensor:
        return photo

    def after(self, photo: Tensor, blocks: int) -> Tensor:
        found: Tensor = nn.functional.relu6(self.second(nn.functional.relu6(self.first(photo))))
        return found


@dataclass(frozen=True)
class Part:
    """One call of the model: as torch, as converted, and an input of one row."""

    module: nn.Module
    inputs: dict[str, Tensor]
    converted: bytes

    @property
    def arrays(self) -> Arrays:
        return {name: value.numpy() for name, value in self.inputs.items()}

    def expected(self, inputs: Mapping[str, Tensor] | None = None) -> Arrays:
        with torch.inference_mode():
            return {name: value.numpy() for name, value in self.module(**(inputs or self.inputs)).items()}


@dataclass(frozen=True)
class Parts:
    """Both calls of one model, and its masked weights by parameter name."""

    cell: Cell
    model: CaptionModel
    encode: Part
    step: Part
    weights: dict[str, NDArray[np.float32]]


def make_parts(cell: Cell) -> Parts:
    torch.manual_seed(21)
    shape = SoftAttentionConfig(cell=cell, embedding=WIDTH, hidden=WIDTH, attention=WIDTH, context=WIDTH)
    decoder = SoftAttention(shape, features=FEATURES, vocabulary=VOCABULARY, regions=REGIONS)
    model = CaptionModel(GridEncoder(ENCODER, TinyNetwork()), decoder).eval()
    prune(decoder)
    encode, step = EncodeCall(model).eval(), StepCall(decoder).eval()
    photo = {"photo": torch.rand(1, ENCODER.size, ENCODER.size, 3) * 2 - 1}
    weights = {name: value.detach().numpy() for name, value in decoder.named_parameters() if name.endswith("weight")}
    return Parts(
        cell,
        model,
        Part(encode, photo, bytes_once(f"{cell}-encode.onnx", lambda: convert_onnx(encode, encode.example()))),
        Part(
            step,
            step_inputs(step, 1),
            bytes_once(f"{cell}-step.onnx", lambda: convert_onnx(step, step.example(), rows=True)),
        ),
        weights,
    )


def prune(module: nn.Module) -> None:
    """Random weights of unit gain with random zeros, `output` dense; biases that are not zero."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            kept = 1.0 if name == "output.weight" else 1 - SPARSITY
            if name.endswith("weight"):
                mask = torch.rand_like(parameter) < kept
                parameter.normal_(0, (parameter.shape[-1] * kept) ** -0.5).mul_(mask)
            else:
                parameter.normal_(0, 0.1)


def step_inputs(step: StepCall, rows: int) -> dict[str, Tensor]:
    inputs = {
        name: torch.randn(rows, *value.shape[1:]) / 2 for name, value in step.example().items() if name != "token"
    }
    return {"token": torch.arange(7, 7 + rows, dtype=torch.int32), **inputs}


def state(cell: Cell) -> dict[str, tuple[tuple[int, ...], str]]:
    return dict.fromkeys(("h", "c") if cell == "lstm" else ("h",), ((1, WIDTH), "float32"))


def step_signature(cell: Cell) -> tuple[Signature, Signature]:
    looked_at = dict.fromkeys(("keys", "values"), ((1, REGIONS, WIDTH), "float32"))
    outputs = {"scores": ((1, VOCABULARY), "float32"), "attention": ((1, REGIONS), "float32")}
    after = {f"next_{name}": value for name, value in state(cell).items()}
    return {"token": ((1,), "int32"), **state(cell), **looked_at}, {**outputs, **after}


def encode_signature(cell: Cell) -> tuple[Signature, Signature]:
    looked_at = dict.fromkeys(("keys", "values"), ((1, REGIONS, WIDTH), "float32"))
    return {"photo": ((1, ENCODER.size, ENCODER.size, 3), "float32")}, {**looked_at, **state(cell)}


def check_step(data: bytes, cell: Cell = "lstm") -> OnnxModel:
    return check_onnx(data, "decoder.onnx", *step_signature(cell), rows=True)


def check_encode(data: bytes, cell: Cell = "lstm") -> OnnxModel:
    return check_onnx(data, "encoder.onnx", *encode_signature(cell), rows=False)


def largest_error(found: Arrays, expected: Arrays) -> float:
    """The largest difference of any output, relative to the output's largest value (to 1 where all are zero)."""
    assert found.keys() == expected.keys()
    return float(
        max(np.abs(found[name] - value).max() / (np.abs(value).max() or 1) for name, value in expected.items())
    )
