"""A tiny real model in torch and as a bundle, photos to caption, and what torch says of them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from capprune.data.captions import CaptionedPhoto
from capprune.validation.parity import ScoreGap
from capprune.validation.validate import Reference
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption import search
from capprune_runtime.photo import normalise, read_photo

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import tiny_bundle

PHOTOS = 12
State = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class World:
    """Attributes: bundle, the folder of its photos, their captions, and torch's own answers."""

    bundle: Bundle
    folder: Path
    photos: tuple[CaptionedPhoto, ...]
    reference: Callable[[int], dict[str, Reference]]
    score_gap: ScoreGap


class TorchSearch:
    """The bundle's search over the torch modules that it was exported from."""

    def __init__(self, models: tiny_bundle.TinyModels, bundle: Bundle, paths: dict[str, Path]) -> None:
        self._models, self._bundle, self._paths = models, bundle, paths

    def tokens(self, name: str, width: int) -> tuple[int, ...]:
        return search.beam(self._step, self._start(name), self._bundle.manifest.decoding, width).tokens

    def caption(self, name: str, width: int) -> str:
        return self._bundle.vocabulary.caption(self.tokens(name, width))

    def score_gap(self, name: str, reference: tuple[int, ...], other: tuple[int, ...]) -> float:
        return abs(self._log_probability(name, reference) - self._log_probability(name, other))

    def _log_probability(self, name: str, tokens: tuple[int, ...]) -> float:
        decoding = self._bundle.manifest.decoding
        ended = (*tokens, decoding.end)[: decoding.max_tokens]
        state, total = self._start(name), 0.0
        for before, token in zip((decoding.start, *ended), ended, strict=False):
            result = self._step(before, state, 0)
            scores, state = result.scores.astype(np.float64), result.state
            scores[list(decoding.suppress)] = -np.inf
            total += float(scores[token] - np.logaddexp.reduce(scores))
        return total

    @torch.inference_mode()
    def _start(self, name: str) -> State:
        photo = torch.from_numpy(normalise(read_photo(self._paths[name], tiny_bundle.SIZE)))
        return {key: value.numpy() for key, value in self._models.encoder(photo).items()}

    @torch.inference_mode()
    def _step(self, token: int, state: State, position: int) -> search.StepResult[State]:
        tensors = {key: torch.from_numpy(value) for key, value in state.items()}
        outputs = self._models.step(token=torch.tensor([token]), **tensors)
        return search.StepResult(
            scores=outputs["scores"][0].numpy(),
            state={**state, "h": outputs["h"].numpy(), "c": outputs["c"].numpy()},
            attention=outputs["attention"][0].numpy(),
        )


def make_world(root: Path) -> World:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # litert-torch and its parts warn of each other's future
        models = tiny_bundle.make_models("lstm", root)
    bundle = verify_bundle(tiny_bundle.write_bundle(root / "tiny-bundle", models))
    (root / "photos").mkdir()
    draw = np.random.default_rng(7)
    for number in range(PHOTOS):
        pixels = draw.integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
        Image.fromarray(pixels).save(root / "photos" / f"{number:02}.png")
    paths = {path.name: path for path in sorted((root / "photos").iterdir())}
    said = TorchSearch(models, bundle, paths)
    return World(
        bundle,
        root / "photos",
        tuple(
            CaptionedPhoto(name, "test", (said.caption(name, 1), "word5 word6 word7")[: 1 + number % 2])
            for number, name in enumerate(paths)
        ),
        lambda width: {name: Reference(said.tokens(name, width), said.caption(name, width)) for name in paths},
        said.score_gap,
    )
