"""The captioner: what torch would say, with attention, states and timings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundle
import torch

from capprune_runtime import Captioner, verify_bundle
from capprune_runtime.caption.decoder import DecoderState, DecoderStep
from capprune_runtime.caption.search import StepResult, beam, greedy
from capprune_runtime.errors import UsageError
from capprune_runtime.photo import normalise

State = Mapping[str, Any]


@pytest.fixture(params=["lstm", "gru"])
def models(request: pytest.FixtureRequest) -> tiny_bundle.TinyModels:
    models: tiny_bundle.TinyModels = request.getfixturevalue(f"{request.param}_models")
    return models


@pytest.fixture
def captioner(models: tiny_bundle.TinyModels, tmp_path: Path) -> Captioner:
    return Captioner(verify_bundle(tiny_bundle.write_bundle(tmp_path / "b", models)))


def torch_step(models: tiny_bundle.TinyModels, token: int, state: State) -> StepResult[State]:
    inputs = {name: torch.from_numpy(np.asarray(array)) for name, array in state.items()}
    with torch.no_grad():
        outputs = models.step(torch.tensor([token], dtype=torch.int32), **inputs)
    arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
    carried = {name: arrays[name] for name in tiny_bundle.state_names(models.cell)}
    return StepResult(arrays["scores"][0], {**state, **carried}, arrays["attention"][0])


@pytest.mark.parametrize("width", [1, 2, 5])
def test_captions_equal_those_of_torch(captioner: Captioner, models: tiny_bundle.TinyModels, width: int) -> None:
    said = set()
    for seed in range(12):
        photo = tiny_bundle.photo_pixels(seed)
        with torch.no_grad():
            encoded = models.encoder(torch.from_numpy(normalise(photo)))
        start = {name: tensor.numpy() for name, tensor in encoded.items()}
        decoding = captioner.bundle.manifest.decoding

        def step(token: int, state: State, position: int) -> StepResult[State]:
            return torch_step(models, token, state)

        expected = greedy(step, start, decoding) if width == 1 else beam(step, start, decoding, width)
        caption = captioner.caption(photo, beam=width)
        said.add(caption.tokens)
        assert caption.tokens == expected.tokens
        assert caption.finished == expected.finished
        assert caption.log_probability == pytest.approx(expected.log_probability, abs=1e-4)
        assert caption.attention is not None
        assert caption.attention.shape == (len(caption.tokens), tiny_bundle.REGIONS)
        assert caption.attention.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert caption.text == " ".join(tiny_bundle.WORDS[token] for token in caption.tokens)
    assert len(said) > 1  # a captioner that says one thing of every photo would prove little


def test_without_a_width_the_bundles_own_is_taken_and_every_call_is_timed(captioner: Captioner) -> None:
    photo = tiny_bundle.photo_pixels()
    own, three = captioner.caption(photo), captioner.caption(photo, beam=3)
    assert own.tokens == three.tokens
    assert len(own.step_us) == len(three.step_us) > 0
    assert own.encode_us > 0 and all(us > 0 for us in own.step_us)


def test_a_caption_of_no_words_has_attention_of_no_rows(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(token: int, state: DecoderState, position: int) -> StepResult[DecoderState]:
        scores = np.zeros(tiny_bundle.VOCABULARY, np.float32)
        scores[2] = 50
        return StepResult(scores, state, np.ones(tiny_bundle.REGIONS, np.float32))

    monkeypatch.setattr(DecoderStep, "__call__", lambda self, *given: ends(*given))
    caption = captioner.caption(tiny_bundle.photo_pixels(), beam=1)
    assert caption.text == "" and caption.finished and caption.attention is not None
    assert caption.attention.shape == (0, tiny_bundle.REGIONS)


@pytest.mark.parametrize("beam_width", [0, -1, 101])
def test_a_beam_out_of_range_is_a_usage_error(captioner: Captioner, beam_width: int) -> None:
    with pytest.raises(UsageError, match="--beam"):
        captioner.caption(tiny_bundle.photo_pixels(), beam=beam_width)


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((tiny_bundle.SIZE, tiny_bundle.SIZE + 1, 3), np.uint8),
        np.zeros((tiny_bundle.SIZE, tiny_bundle.SIZE, 3), np.float32),
        np.zeros((tiny_bundle.SIZE, tiny_bundle.SIZE), np.uint8),
    ],
)
def test_a_photo_of_another_shape_is_a_usage_error(captioner: Captioner, photo: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError, match="does not fit the encoder"):
        captioner.caption(photo)
