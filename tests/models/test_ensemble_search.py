"""Several decoders search together with the mean of their probabilities, as one would compute it by hand."""

from __future__ import annotations

from typing import Any

import family_world as world
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import log_softmax, softmax

from capprune.models.ensemble import ensemble_beam, mean_probabilities
from capprune.models.family import Decoder, Tensors
from capprune.models.search import SUPPRESSED, Walk, beam, log_probabilities
from capprune_runtime.bundle.manifest import DecodingSection
from capprune_runtime.bundle.vocabulary import END, START
from capprune_runtime.caption import search as on_device

PHOTOS = 5
FAMILIES = ("soft_attention", "show_tell", "retention", "relation_transformer")
Encoded = tuple[Tensors, Tensors]


def members(*families: str) -> tuple[list[Decoder], list[Encoded]]:
    """Random decoders of one vocabulary; each has its own features of the photos."""
    decoders, each = [], []
    for seed, family in enumerate(families):
        decoders.append(world.random_decoder(family, seed=seed))
        each.append(world.encoded(decoders[-1], PHOTOS, seed=40 + seed))
    return decoders, each


def mean_by_hand(rows: list[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """The mean of probabilities without the words that no caption holds, in NumPy."""
    likely = []
    for row in rows:
        wide = row.astype(np.float64)
        wide[..., list(SUPPRESSED)] = -np.inf
        likely.append(softmax(wide, axis=-1))
    return np.mean(likely, axis=0)


def test_mean_of_distributions_is_that_of_their_probabilities() -> None:
    rows = np.random.default_rng(3).normal(0, 4, (3, 6, 11))
    found = mean_probabilities(torch.from_numpy(log_softmax(row, axis=-1)) for row in rows)
    np.testing.assert_allclose(found.exp(), softmax(rows, axis=-1).mean(0), rtol=1e-12)
    one = torch.log_softmax(torch.from_numpy(rows[0]), -1)
    assert mean_probabilities([one]) is one
    never = torch.tensor([0.0, -torch.inf], dtype=torch.float64)
    np.testing.assert_array_equal(mean_probabilities([never, never]).exp(), [1, 0])
    with pytest.raises(ValueError, match="at least one"):
        mean_probabilities([])


@pytest.mark.parametrize("width", [1, 3])
def test_search_of_several_is_that_of_the_device_with_the_mean_computed_by_hand(width: int) -> None:
    decoders, each = members(*FAMILIES)
    found = ensemble_beam(decoders, each, world.LIMIT, width)
    decoding = DecodingSection(start=START, end=END, suppress=SUPPRESSED, max_tokens=world.LIMIT, beam=width)
    alone = [beam(decoder, own, world.LIMIT, width).tokens for decoder, own in zip(decoders, each, strict=True)]
    for photo in range(PHOTOS):
        parts = [({name: part[photo : photo + 1] for name, part in some.items()} for some in own) for own in each]
        held, first = zip(*parts, strict=True)

        @torch.inference_mode()
        def step(token: int, states: Any, position: int, held: Any = held) -> on_device.StepResult[Any]:
            scores, after = [], []
            for decoder, state, own in zip(decoders, states, held, strict=True):
                place = decoder.position_at(position, torch.zeros(1))
                one = decoder.step(torch.tensor([token]), state, own, place)
                scores.append(one.scores[0].numpy())
                after.append(decoder.advance(state, one, position))
            likely = mean_by_hand(scores)
            mean = np.log(likely, out=np.full(len(likely), -1e4), where=likely > 0)
            return on_device.StepResult(mean, after, None)

        begun = [decoder.begin(own, 1) for decoder, own in zip(decoders, first, strict=True)]
        said = on_device.beam(step, begun, decoding, width)
        assert found.tokens[photo] == said.tokens
        assert found.log_probabilities[photo] == pytest.approx(said.log_probability, abs=1e-4)
    assert all(found.tokens != tokens for tokens in alone)  # or the test could not tell the mean from a member


@pytest.mark.parametrize("family", FAMILIES)
def test_one_member_searches_as_it_does_alone(family: str) -> None:
    decoders, each = members(family)
    alone = beam(decoders[0], each[0], world.LIMIT, 3, no_repeat_ngram=2)
    together = ensemble_beam(decoders, each, world.LIMIT, 3, no_repeat_ngram=2)
    assert together == alone  # to the bit
    twice = ensemble_beam(decoders * 2, each * 2, world.LIMIT, 3, no_repeat_ngram=2)
    assert twice.tokens == alone.tokens
    np.testing.assert_allclose(twice.log_probabilities, alone.log_probabilities, atol=1e-9)


def test_probabilities_are_averaged_and_not_the_scores() -> None:
    decoders, each = members("soft_attention", "show_tell")
    start = torch.full((PHOTOS,), START)
    walks = [Walk(decoder, own) for decoder, own in zip(decoders, each, strict=True)]
    with torch.inference_mode():
        scores = [walk.step(start) for walk in walks]
        found = mean_probabilities(log_probabilities(one) for one in scores)
    np.testing.assert_allclose(found.exp(), mean_by_hand([one.numpy() for one in scores]), rtol=1e-9)
