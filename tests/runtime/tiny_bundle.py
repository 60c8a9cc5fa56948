"""A captioner of a few thousand random weights, exported by litert-torch, and the bundle around it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "worlds"))
from made_once import bytes_once

VOCABULARY, EMBEDDING, HIDDEN, ATTENTION, CONTEXT, REGIONS, SIZE = 24, 16, 16, 16, 16, 4, 16
WORDS = ("<pad>", "<start>", "<end>", "<unk>", *(f"word{n}" for n in range(4, VOCABULARY)))


class TinyEncoder(nn.Module):
    def __init__(self, cell: str) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, CONTEXT, SIZE // 2, stride=SIZE // 2)
        self.keys = nn.Linear(CONTEXT, ATTENTION)
        self.state = nn.ModuleDict({name: nn.Linear(CONTEXT, HIDDEN) for name in state_names(cell)})

    def forward(self, photo: Tensor) -> dict[str, Tensor]:
        values = torch.relu(self.features(photo.permute(0, 3, 1, 2))).flatten(2).transpose(1, 2)  # (B, R, C)
        mean = values.mean(1)
        state = {name: torch.tanh(layer(mean)) for name, layer in self.state.items()}
        return {"keys": self.keys(values), "values": values, **state}


class TinyStep(nn.Module):
    def __init__(self, cell: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.query, self.energy = nn.Linear(HIDDEN, ATTENTION), nn.Linear(ATTENTION, 1)
        self.cell: nn.Module = (nn.LSTMCell if cell == "lstm" else nn.GRUCell)(EMBEDDING + CONTEXT, HIDDEN)
        self.scores = nn.Linear(HIDDEN + CONTEXT, VOCABULARY)
        nn.init.normal_(self.scores.weight, std=1.5)

    def forward(
        self, token: Tensor, h: Tensor, keys: Tensor, values: Tensor, c: Tensor | None = None
    ) -> dict[str, Tensor]:
        energy = self.energy(torch.tanh(keys + self.query(h)[:, None])).squeeze(-1)  # (B, R)
        attention = torch.softmax(energy, -1)
        context = (attention[:, :, None] * values).sum(1)  # (B, C)
        x = torch.cat([self.embedding(token), context], -1)
        if c is None:
            state = {"h": self.cell(x, h)}
        else:
            h, c = self.cell(x, (h, c))
            state = {"h": h, "c": c}
        return {"scores": self.scores(torch.cat([state["h"], context], -1)), "attention": attention, **state}


@dataclass(frozen=True)
class TinyModels:
    cell: str
    encoder: TinyEncoder
    step: TinyStep
    encoder_tflite: bytes
    step_tflite: bytes


def state_names(cell: str) -> tuple[str, ...]:
    return ("h", "c") if cell == "lstm" else ("h",)


def step_shapes(cell: str) -> dict[str, tuple[int, ...]]:
    state = dict.fromkeys(state_names(cell), (1, HIDDEN))
    return {"keys": (1, REGIONS, ATTENTION), "values": (1, REGIONS, CONTEXT), **state}


def make_models(cell: str, folder: Path) -> TinyModels:
    torch.manual_seed(5)
    encoder, step = TinyEncoder(cell).eval(), TinyStep(cell).eval()
    photo = {"photo": torch.zeros(1, SIZE, SIZE, 3)}
    inputs = {"token": torch.zeros(1, dtype=torch.int32)}
    inputs |= {name: torch.zeros(shape) for name, shape in step_shapes(cell).items()}
    files = [
        bytes_once(f"tiny-{cell}-{signature}.tflite", lambda call=call: _converted(*call, folder / "model.tflite"))
        for signature, *call in (("encode", "encode", encoder, photo), ("step", "step", step, inputs))
    ]
    return TinyModels(cell, encoder, step, *files)


def _converted(signature: str, module: nn.Module, inputs: dict[str, Tensor], place: Path) -> bytes:
    import litert_torch

    litert_torch.signature(signature, module, sample_kwargs=inputs).convert().export(str(place))
    return place.read_bytes()


def photo_pixels(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def manifest_json(cell: str) -> dict[str, Any]:
    sizes = {"embedding": EMBEDDING, "hidden": HIDDEN, "attention": ATTENTION, "context": CONTEXT}
    shapes = {"keys": [REGIONS, ATTENTION], "values": [REGIONS, CONTEXT]}
    carried = {"shape": [HIDDEN], "first": "encode", "carry": "replace"}
    return {
        "format": "capprune-bundle",
        "schema_version": 2,
        "created_by": "capprune 0.2.0",
        "model": {
            "family": "soft_attention",
            "description": f"{cell.upper()} with soft attention over 4 regions",
            "sizes": sizes,
        },
        "preprocessing": {
            "input": "photo",
            "size": SIZE,
            "resize": "squash-triangle-q15",
            "mean": [127.0] * 3,
            "scale": [128.0] * 3,
        },
        "decoding": {"start": 1, "end": 2, "suppress": [0, 1, 3], "max_tokens": 8, "beam": 3},
        "tokens": {"kind": "words", "base": 0, "per_word": 1},
        "encoder": {"file": "encoder.tflite", "signature": "encode"},
        "decoder": {
            "file": "decoder.tflite",
            "signature": "step",
            "interface": {
                "vocabulary": VOCABULARY,
                "held": {name: {"shape": shape, "dtype": "float32"} for name, shape in shapes.items()},
                "state": {name: dict(carried) for name in state_names(cell)},
                "regions": REGIONS,
                "position": False,
            },
        },
        "pruning": {"method": "supermask", "sparsity": 0.75, "kept_weights": 250, "prunable_weights": 1000},
        "quantisation": {"encoder": "float32", "decoder": "float32"},
        "data": {"name": "drawn scenes", "licence": "CC0-1.0"},
        "config": {"seed": 1, "train": {"rate": 0.5, "names": ["a", None, True]}},
        "files": {},
    }


def schema1_json(cell: str) -> dict[str, Any]:
    """The same as version 0.1 wrote it."""
    sizes = {"embedding": EMBEDDING, "hidden": HIDDEN, "attention": ATTENTION, "context": CONTEXT}
    kept = {key: value for key, value in manifest_json(cell).items() if key != "tokens"}
    return {
        **kept,
        "schema_version": 1,
        "model": {"family": "soft_attention", "cell": cell, **sizes, "regions": REGIONS, "vocabulary": VOCABULARY},
        "preprocessing": {"size": SIZE, "resize": "squash-triangle-q15", "mean": 127, "scale": 128},
        "decoder": {"file": "decoder.tflite", "signature": "step", "state": list(state_names(cell))},
    }


def write_bundle(folder: Path, models: TinyModels) -> Path:
    (folder / "golden").mkdir(parents=True)
    (folder / "encoder.tflite").write_bytes(models.encoder_tflite)
    (folder / "decoder.tflite").write_bytes(models.step_tflite)
    (folder / "vocabulary.txt").write_bytes("".join(f"{word}\n" for word in WORDS).encode())
    Image.fromarray(photo_pixels()).save(folder / "golden" / "scene-0.png")
    (folder / "golden" / "golden.json").write_text("[]\n")
    (folder / "MODEL_CARD.md").write_text("# A model\n")
    seal(folder, manifest_json(models.cell))
    return folder


def seal(folder: Path, manifest: Mapping[str, object]) -> None:
    """Write the manifest with the hashes of what now lies in the folder."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
        }
        for path in sorted(paths)
    }
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": files}, indent=2))
