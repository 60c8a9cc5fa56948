"""Bundles of random weights whose decoders have other interfaces than that of `tiny_bundle`, exported for TFLite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tiny_bundle
import torch
from tiny_bundle import ATTENTION, CONTEXT, HIDDEN, REGIONS, SIZE, VOCABULARY, TinyEncoder, TinyModels, TinyStep
from torch import Tensor, nn

from capprune_exporters.tflite.convert import convert

MAX_TOKENS = 8
CHANNELS = 12  # of a region that a detector found
HIDDEN_SCORE = 1e4  # taken from the score of a word that is not there yet: its share is exactly 0 in float32


class CachedStep(nn.Module):
    """One layer of a transformer: attention over the words so far, whose keys and values are cached, and over the photo."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(MAX_TOKENS, HIDDEN)
        self.query, self.key, self.value = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))
        self.photo, self.photo_query = nn.Linear(CONTEXT, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.scores = nn.Linear(HIDDEN, VOCABULARY)
        nn.init.normal_(self.scores.weight, std=1.5)
        self.register_buffer("steps", torch.arange(MAX_TOKENS, dtype=torch.float32))

    def forward(self, token: Tensor, position: Tensor, cache: Tensor, values: Tensor) -> dict[str, Tensor]:
        x = self.words(token) + self.places(position)  # (1, H)
        key, value = self.key(x), self.value(x)
        keys = torch.cat([cache[:, :, 0], key[:, None]], 1)  # (1, T + 1, H)
        said = torch.cat([cache[:, :, 1], value[:, None]], 1)
        before = torch.relu(position.float()[:, None] - self.steps[None])  # (1, T): at least 1 for the words before
        hidden = torch.relu(1 - before) * HIDDEN_SCORE
        scores = (keys * self.query(x)[:, None]).sum(-1) / math.sqrt(HIDDEN)
        scores = scores - torch.cat([hidden, torch.zeros(1, 1)], 1)
        x = x + (torch.softmax(scores, -1)[:, :, None] * said).sum(1)
        regions = self.photo(values)  # (1, R, H)
        seen = torch.softmax((regions * self.photo_query(x)[:, None]).sum(-1), -1)
        x = torch.tanh(x + 6 * (seen[:, :, None] * regions).sum(1))
        return {"scores": self.scores(x), "cache": torch.stack([key, value], 1)}


class Photo(nn.Module):
    """Some of the outputs of an encoder."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder, self.names = TinyEncoder("lstm"), names

    def forward(self, photo: Tensor) -> dict[str, Tensor]:
        encoded = self.encoder(photo)
        return {name: encoded[name] for name in self.names}


class Regions(nn.Module):
    """Keys and values of regions that a detector found."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.values = nn.Linear(CHANNELS, ATTENTION), nn.Linear(CHANNELS, CONTEXT)

    def forward(self, regions: Tensor, present: Tensor) -> dict[str, Tensor]:
        there = present[:, :, None]
        return {"keys": self.keys(regions) * there, "values": torch.relu(self.values(regions)) * there}


def write_cached_bundle(folder: Path) -> Path:
    """A decoder that appends to a cache, takes the position and shows no attention."""
    cache = {"shape": [MAX_TOKENS, 2, HIDDEN], "first": "zeros", "carry": "append"}
    held = {"values": {"shape": [REGIONS, CONTEXT], "dtype": "float32"}}
    interface = {"held": held, "state": {"cache": cache}, "regions": None, "position": True}
    inputs = {
        "token": torch.zeros(1, dtype=torch.int32),
        "position": torch.zeros(1, dtype=torch.int32),
        "cache": torch.zeros(1, MAX_TOKENS, 2, HIDDEN),
        "values": torch.zeros(1, REGIONS, CONTEXT),
    }
    torch.manual_seed(9)
    return _write(folder, Photo(("values",)), _photo(), CachedStep(), inputs, interface)


def write_bundle_without_first_state(folder: Path) -> Path:
    """An LSTM whose state begins with zeros, and a mean and scale for each channel."""
    preprocessing = {"mean": [123.675, 116.28, 103.53], "scale": [58.395, 57.12, 57.375]}
    torch.manual_seed(11)
    return _write(
        folder, Photo(("keys", "values")), _photo(), TinyStep("lstm"), _lstm_inputs(), _zeros(), preprocessing
    )


def write_regions_bundle(folder: Path) -> Path:
    """An encoder that takes features of regions."""
    preprocessing = {"input": "regions", "regions": REGIONS, "channels": CHANNELS}
    inputs = {"regions": torch.zeros(1, REGIONS, CHANNELS), "present": torch.ones(1, REGIONS)}
    torch.manual_seed(13)
    return _write(folder, Regions(), inputs, TinyStep("lstm"), _lstm_inputs(), _zeros(), preprocessing)


def _photo() -> dict[str, Tensor]:
    return {"photo": torch.zeros(1, SIZE, SIZE, 3)}


def _lstm_inputs() -> dict[str, Tensor]:
    shapes = tiny_bundle.step_shapes("lstm")
    return {"token": torch.zeros(1, dtype=torch.int32)} | {name: torch.zeros(shape) for name, shape in shapes.items()}


def _zeros() -> dict[str, Any]:
    carried = {"shape": [HIDDEN], "first": "zeros", "carry": "replace"}
    return {"state": {"h": dict(carried), "c": dict(carried)}}


def _write(
    folder: Path,
    encoder: nn.Module,
    encoder_inputs: Mapping[str, Tensor],
    step: nn.Module,
    step_inputs: Mapping[str, Tensor],
    interface: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None = None,
) -> Path:
    encode = convert(encoder.eval(), "encode", encoder_inputs)
    models = TinyModels(
        "lstm", TinyEncoder("lstm"), TinyStep("lstm"), encode, convert(step.eval(), "step", step_inputs)
    )
    tiny_bundle.write_bundle(folder, models)
    manifest = tiny_bundle.manifest_json("lstm")
    manifest["model"] |= {"family": "any_family", "description": "random weights"}
    manifest["decoder"]["interface"] |= interface
    if preprocessing is not None:
        of_regions = preprocessing.get("input") == "regions"
        if of_regions:
            (folder / "golden" / "scene-0.png").unlink()
        manifest["preprocessing"] = {**({} if of_regions else manifest["preprocessing"]), **preprocessing}
    tiny_bundle.seal(folder, manifest)
    return folder
