"""Small models of the real classes with random weights of which 97.5 % are zero, converted, and where to run them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from made_once import bytes_once
from numpy.typing import NDArray
from torch import Tensor, nn

from capprune.config.encoder import EncoderConfig
from capprune.models.caption_model import CaptionModel, GridEncoder, region_count
from capprune.models.encoder import Encoder
from capprune.models.exportable import EncodeCall, StepCall
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune_exporters.stored import SparseModel
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.quantise import static_int8, weight_only_int8
from capprune_exporters.tflite.sparse import make_sparse
from capprune_runtime.caption.interpreter import open_model

SPARSITY = 0.975
WIDTH, FEATURES, VOCABULARY = 64, 96, 300
ENCODER = EncoderConfig(size=96, grid=2)  # 3 x 3 cells of 32 pixels, pooled to 4 regions

# Interpreters that must not share a process with another one, and the module that tells whether they are installed.
ELSEWHERE = {"tensorflow": "tensorflow", "tflite-runtime": "tflite_runtime"}
RUNTIMES = ("ai-edge-litert", *ELSEWHERE)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A model file, what goes in, and what torch or NumPy says must come out."""

    data: bytes
    signature: str
    inputs: Arrays
    expected: Arrays


@dataclass(frozen=True)
class Part:
    """A torch module, as the converter wrote it, and made sparse."""

    module: nn.Module
    inputs: dict[str, Tensor]
    converted: bytes
    sparse: SparseModel

    def case(self, data: bytes, signature: str) -> Case:
        with torch.inference_mode():
            expected = {name: value.numpy() for name, value in self.module(**self.inputs).items()}
        return Case(data, signature, {name: value.numpy() for name, value in self.inputs.items()}, expected)


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
        found: Tensor = torch.relu(self.second(torch.relu(self.first(photo))))
        return found


class SharedWeights(nn.Module):
    """One matrix that two FULLY_CONNECTED use, and one that is both embedding and output."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.twice = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, token: Tensor) -> dict[str, Tensor]:
        h = self.twice(torch.tanh(self.twice(self.words(token))))
        return {"scores": h @ self.words.weight.T}


def make_step(cell: Literal["lstm", "gru"]) -> Part:
    torch.manual_seed(11)
    shape = SoftAttentionConfig(cell=cell, embedding=WIDTH, hidden=WIDTH, attention=WIDTH, context=WIDTH)
    decoder = SoftAttention(shape, features=FEATURES, vocabulary=VOCABULARY, regions=region_count(ENCODER))
    prune(decoder)
    step = StepCall(decoder).eval()
    inputs = {
        name: value if name == "token" else torch.randn(value.shape) / 2 for name, value in step.example().items()
    }
    inputs["token"] = torch.tensor([7], dtype=torch.int32)
    return _part(f"sparse-{cell}-step", step, inputs, "step", one_row=True)


def make_encode() -> Part:
    torch.manual_seed(12)
    decoder = SoftAttention(
        SoftAttentionConfig(cell="lstm", embedding=WIDTH, hidden=WIDTH, attention=WIDTH, context=WIDTH),
        features=FEATURES,
        vocabulary=VOCABULARY,
    )
    prune(decoder)
    encoder = GridEncoder(ENCODER, TinyNetwork())
    encode = EncodeCall(CaptionModel(encoder, decoder)).eval()
    return _part(
        "sparse-encode",
        encode,
        {"photo": torch.rand(1, ENCODER.size, ENCODER.size, 3) * 2 - 1},
        "encode",
        one_row=False,
    )


def make_shared() -> Part:
    torch.manual_seed(13)
    module = SharedWeights().eval()
    prune(module)
    return _part("shared-weights", module, {"token": torch.tensor([5], dtype=torch.int32)}, "shared", one_row=True)


def prune(module: nn.Module) -> None:
    """Random weights of unit gain with random zeros; biases that are not zero, which a converter would drop."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("weight"):
                kept = torch.rand_like(parameter) >= SPARSITY
                kept.view(-1)[0] = True  # converters fold what a matrix of zeros gives
                parameter.normal_(0, (parameter.shape[-1] * (1 - SPARSITY)) ** -0.5).mul_(kept)
            else:
                parameter.normal_(0, 0.1)


class DeadChannels(nn.Module):
    """A network of which a channel has hardly any weights and a large bias, and whose first output is read inside as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 1)
        self.inner = nn.Linear(8, 16)
        with torch.no_grad():
            for layer in (self.first, self.second):
                layer.weight[:2] = 0
                layer.weight[1].view(-1)[0] = 1e-9
                layer.bias[:2] = torch.tensor([1.5, -0.7])

    def forward(self, photo: Tensor) -> dict[str, Tensor]:
        found = self.second(nn.functional.relu6(self.first(photo.permute(0, 3, 1, 2))))
        values = found.permute(0, 2, 3, 1).reshape(1, -1, 8)
        return {"values": values, "keys": self.inner(values)}


def make_dead_channels() -> Part:
    torch.manual_seed(14)
    return _part(
        "dead-channels", DeadChannels().eval(), {"photo": torch.rand(1, 17, 17, 3) * 2 - 1}, "encode", one_row=False
    )


def calibration(part: Part, count: int = 8) -> list[Arrays]:
    """Random photos of the size that a part takes."""
    draw = np.random.default_rng(3)
    shape = tuple(part.inputs["photo"].shape)
    return [{"photo": draw.uniform(-1, 1, shape).astype(np.float32)} for _ in range(count)]


def int8_cases(encode: Part, dead_channels: Part) -> dict[str, Case]:
    return {
        "int8": encode.case(weight_only_int8(encode.converted), "encode"),
        "int8 and sparse": encode.case(weight_only_int8(encode.sparse.data), "encode"),
        "static": encode.case(static_int8(encode.converted, calibration(encode)), "encode"),
        "static and sparse": encode.case(static_int8(encode.sparse.data, calibration(encode)), "encode"),
        "dead channels": dead_channels.case(static_int8(dead_channels.converted, calibration(dead_channels)), "encode"),
    }


def outputs_of(cases: Mapping[str, Case], runtime: str, folder: Path) -> dict[str, Arrays]:
    """Run every case in an interpreter, in one process of its own where it wants one."""
    if runtime not in ELSEWHERE:
        return {name: run(case, runtime) for name, case in cases.items()}
    for number, case in enumerate(cases.values()):
        (folder / f"{number}.tflite").write_bytes(case.data)
        np.savez(folder / f"{number}.inputs.npz", **case.inputs)
    signatures = json.dumps([case.signature for case in cases.values()])
    script = Path(__file__).with_name("other_process.py")
    command = [sys.executable, str(script), runtime, str(folder), signatures]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for number, name in enumerate(cases):
        with np.load(folder / f"{number}.outputs.npz") as arrays:
            found[name] = dict(arrays)
    return found


def run(case: Case, runtime: str) -> Arrays:
    return open_model(case.data, case.signature, runtime=runtime).run(case.inputs)


def installed(runtime: str) -> bool:
    return importlib.util.find_spec(ELSEWHERE.get(runtime, "ai_edge_litert")) is not None


def largest_error(found: Arrays, expected: Arrays) -> float:
    """The largest difference of any output, relative to the output's largest value (to 1 where all are zero)."""
    assert found.keys() == expected.keys()
    errors = (np.abs(found[name] - value).max() / (np.abs(value).max() or 1) for name, value in expected.items())
    return float(max(errors))


def _part(name: str, module: nn.Module, inputs: dict[str, Tensor], signature: str, *, one_row: bool) -> Part:
    converted = bytes_once(f"{name}.tflite", lambda: convert(module, signature, inputs))
    return Part(module, inputs, converted, make_sparse(converted, one_row=one_row))
