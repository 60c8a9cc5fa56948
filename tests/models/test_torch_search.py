from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from capprune.models.family import Step, Tensors
from capprune.models.search import SUPPRESSED, beam, greedy, log_probabilities
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune_runtime.bundle.manifest import DecodingSection
from capprune_runtime.bundle.vocabulary import END, START
from capprune_runtime.caption import search as on_device

Encoded = tuple[Tensors, Tensors]

PHOTOS, REGIONS, FEATURES, VOCABULARY, LIMIT = 6, 4, 9, 17, 7
DECODING = DecodingSection(start=START, end=END, suppress=SUPPRESSED, max_tokens=LIMIT, beam=3)
TOLERANCE = 1e-4  # both sum in float64, but the float32 scores of a batch differ from those of a row in the last digits


def random_decoder(seed: int, cell: Literal["lstm", "gru"] = "lstm") -> tuple[SoftAttention, Encoded]:
    """A decoder wild enough that captions differ and end at different steps."""
    torch.manual_seed(seed)
    shape = SoftAttentionConfig(cell=cell, embedding=8, hidden=12, attention=6, context=10)
    decoder = SoftAttention(shape, features=FEATURES, vocabulary=VOCABULARY, regions=REGIONS).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2)
        decoder.output.bias[END] = -2  # unlikely on the whole,
        decoder.output.weight[END] *= 5  # likely in some states
    with torch.inference_mode():
        return decoder, decoder.encode(torch.randn(PHOTOS, REGIONS, FEATURES))


def device_step(decoder: SoftAttention, encoded: Encoded, photo: int) -> tuple[on_device.Step[Any], Any]:
    """The same decoder as the search on a device calls it: one photo, one row."""
    held, first = ({name: part[photo : photo + 1] for name, part in some.items()} for some in encoded)

    @torch.inference_mode()
    def step(token: int, state: Any, position: int) -> on_device.StepResult[Any]:
        found = decoder.step(torch.tensor([token]), state, held, decoder.position_at(position, token_like))
        assert found.attention is not None
        after = decoder.advance(state, found, position)
        return on_device.StepResult(found.scores[0].numpy(), after, found.attention[0].numpy())

    token_like = torch.zeros(1)
    return step, decoder.begin(first, 1)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("seed", range(5))
def test_greedy_in_torch_is_that_of_the_device_token_by_token(seed: int, cell: Literal["lstm", "gru"]) -> None:
    decoder, encoded = random_decoder(seed, cell)
    found = greedy(decoder, encoded, LIMIT)
    for photo in range(PHOTOS):
        expected = on_device.greedy(*device_step(decoder, encoded, photo), DECODING)
        assert found.tokens[photo] == expected.tokens
        assert found.log_probabilities[photo] == pytest.approx(expected.log_probability, abs=TOLERANCE)


@pytest.mark.parametrize("no_repeat", [0, 1, 2, 3])
@pytest.mark.parametrize("width", [1, 2, 3, 20])
@pytest.mark.parametrize("seed", range(5))
def test_beam_in_torch_is_that_of_the_device_token_by_token(seed: int, width: int, no_repeat: int) -> None:
    decoder, encoded = random_decoder(seed)
    found = beam(decoder, encoded, LIMIT, width, no_repeat_ngram=no_repeat)
    for photo in range(PHOTOS):
        rules = replace(DECODING, no_repeat_ngram=no_repeat)
        expected = on_device.beam(*device_step(decoder, encoded, photo), rules, width)
        assert found.tokens[photo] == expected.tokens
        assert found.log_probabilities[photo] == pytest.approx(expected.log_probability, abs=TOLERANCE)


def test_these_decoders_try_the_search_with_captions_that_end_and_that_do_not() -> None:
    lengths, changed = set(), 0
    for seed in range(8):
        decoder, encoded = random_decoder(seed)
        one, three = greedy(decoder, encoded, LIMIT), beam(decoder, encoded, LIMIT, 3)
        lengths |= {len(tokens) for tokens in (*one.tokens, *three.tokens)}
        changed += sum(a != b for a, b in zip(one.tokens, three.tokens, strict=True))
    assert {0, 1, 2, 3, LIMIT} <= lengths
    assert changed >= 8


@pytest.mark.parametrize("seed", range(4))
def test_beam_of_one_is_greedy_and_a_wider_beam_is_at_least_as_likely_when_it_keeps_everything(seed: int) -> None:
    decoder, encoded = random_decoder(seed)
    assert beam(decoder, encoded, LIMIT, 1) == greedy(decoder, encoded, LIMIT)
    every = beam(decoder, encoded, 2, VOCABULARY**2)
    for few in (beam(decoder, encoded, 2, 1), beam(decoder, encoded, 2, 3)):
        for best, found, ended in zip(every.log_probabilities, few.log_probabilities, few.tokens, strict=True):
            assert len(ended) == 2 or best >= found - TOLERANCE


@pytest.mark.parametrize("width", [1, 3])
def test_suppressed_words_never_appear_however_likely(width: int) -> None:
    decoder, encoded = random_decoder(0)
    with torch.no_grad():
        decoder.output.bias[list(SUPPRESSED)] = 100.0
    tokens = beam(decoder, encoded, LIMIT, width).tokens
    said = {token for caption in tokens for token in caption}
    assert len(said) > 3
    assert not said & {*SUPPRESSED, END}
    assert float(log_probabilities(torch.zeros(1, 5))[0, 4]) == pytest.approx(-np.log(2))


@dataclass
class Scripted:
    """A decoder whose scores depend on the words before alone, to build ties with."""

    score: Callable[[int], list[float]]
    vocabulary: int

    def begin(self, first: Tensors, rows: int) -> Tensors:
        return {}

    def position_at(self, position: int, beside: Tensor) -> None:
        return None

    def advance(self, state: Tensors, found: Step, position: int) -> Tensors:
        return state

    def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None) -> Step:
        return Step(torch.tensor([self.score(int(each)) for each in token]), state, None)


def scripted_step(script: Scripted) -> on_device.Step[Any]:
    def step(token: int, state: Any, position: int) -> on_device.StepResult[Any]:
        scores: npt.NDArray[np.float32] = np.array(script.score(token), np.float32)
        return on_device.StepResult(scores, state, None)

    return step


def nothing_of(photos: int) -> Encoded:
    return {"held": torch.zeros(photos, 1)}, {}


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_ties_go_to_the_lower_hypothesis_then_to_the_lower_id(width: int) -> None:
    many = 40  # topk finds equals in any order once there are enough of them

    def score(token: int) -> list[float]:
        return [0.0, 0.0, 0.0 if token == START else 1.0, 0.0, *[1.0] * (many - 4)]

    script: Any = Scripted(score, many)
    encoded = nothing_of(2)
    found = beam(script, encoded, 3, width)
    expected = on_device.beam(scripted_step(script), {}, replace(DECODING, max_tokens=3), width)
    assert found.tokens == [expected.tokens] * 2
    assert found.tokens[0][0] == 4


def test_finished_caption_is_chosen_over_a_likelier_one_that_found_no_end() -> None:
    def score(token: int) -> list[float]:
        return [0.0, 0.0, 1.0, 0.0, 1.0 if token == START else 5.0]

    script: Any = Scripted(score, 5)
    encoded = nothing_of(1)
    found = beam(script, encoded, 3, 4)
    expected = on_device.beam(scripted_step(script), {}, replace(DECODING, max_tokens=3), 4)
    assert expected.tokens == ()
    assert expected.log_probability == pytest.approx(np.log(0.5))
    assert found.tokens == [()]
    assert found.log_probabilities == pytest.approx([expected.log_probability])


def test_likeliest_caption_is_cut_when_none_found_an_end() -> None:
    script: Any = Scripted(lambda token: [0.0, -50.0, -50.0, 0.0, 5.0, 1.0], 6)
    encoded = nothing_of(1)
    assert beam(script, encoded, 3, 2).tokens == [(4, 4, 4)]
