"""Capsule pooling: the votes are routed as the paper's loops route them, and every decoder family sees capsules alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.models.capsules import PROJECTION, CapsulePooling
from capprune.models.caption_model import build_decoder
from capprune.models.family import Role

P, R, F, N, D = 2, 6, 10, 3, 4


def config(family: str, *overrides: str) -> RunConfig:
    tree = {"data": {"folder": "nowhere"}, "decoder": {"family": family, "embedding": 8, "hidden": 12}}
    own = ("encoder.pooling=capsules", f"encoder.capsules={N}", f"encoder.capsule_channels={D}")
    return parse_config(tree, (*own, *overrides))


def squashed(x: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(x)
    return x / length * length**2 / (1 + length**2)


def routed(votes: NDArray[np.float64], rounds: int) -> NDArray[np.float64]:
    """Procedure 1 of Sabour et al. for one photo, votes `(R, N, D)`, but that the first round gives everyone a mean."""
    regions, capsules, _ = votes.shape
    logits = np.zeros((regions, capsules))
    pooled = np.stack([squashed(votes[:, n].mean(0)) for n in range(capsules)])
    for _ in range(rounds - 1):
        for region in range(regions):
            for n in range(capsules):
                logits[region, n] += votes[region, n] @ pooled[n]
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        pooled = np.stack([squashed((shares[:, n : n + 1] * votes[:, n]).sum(0)) for n in range(capsules)])
    return pooled


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_votes_are_routed_as_the_papers_loops_route_them(rounds: int) -> None:
    torch.manual_seed(0)
    pooling = CapsulePooling(F, N, D, rounds)
    features = torch.randn(P, R, F)
    votes = pooling.project(features).detach().double().numpy().reshape(P, R, N, D)
    found = pooling(features).detach().numpy()
    np.testing.assert_allclose(found, [routed(one, rounds) for one in votes], atol=1e-5)
    assert (np.linalg.norm(found, axis=-1) < 1).all()


def test_equal_regions_and_zeros_have_a_gradient() -> None:
    pooling = CapsulePooling(F, N, D, 3)
    pooling(torch.zeros(P, R, F)).sum().backward()
    assert all(bool(torch.isfinite(one.grad).all()) for one in pooling.parameters() if one.grad is not None)
    assert pooling.project.bias.grad is not None


@pytest.mark.parametrize("family", ["soft_attention", "show_tell", "up_down"])
def test_every_family_sees_capsules_as_its_regions(family: str) -> None:
    torch.manual_seed(1)
    decoder = build_decoder(config(family), 9, features=F)
    plain = build_decoder(config(family, "encoder.pooling=average"), 9, features=D)
    own = {name: value for name, value in decoder.state_dict().items() if not name.startswith("pooling.")}
    assert {
        f"pooling.{name}" for name in ("project.weight", "project.bias")
    } == decoder.state_dict().keys() - own.keys()
    plain.load_state_dict(own)
    features, words = torch.randn(P, R, F), torch.randint(4, 9, (P, 5))
    with torch.inference_mode():
        seen = decoder.get_submodule("pooling")(features)
        found = decoder.eval().scores(features, words, words)
        torch.testing.assert_close(found, plain.eval().scores(seen, words, words))
        held, first = decoder.encode(features)
        word = decoder.step(words[:, 0], decoder.begin(first, P), held)
    assert decoder.roles()[PROJECTION] is Role.PER_PHOTO
    assert decoder.interface().regions is None and word.attention is None
    assert {name: tuple(value.shape[1:]) for name, value in held.items()} == {
        name: spec.shape for name, spec in decoder.interface().held.items()
    }


@pytest.mark.parametrize("family", ["soft_attention", "show_tell", "up_down"])
def test_every_family_learns_through_capsules_with_its_dropout(family: str) -> None:
    torch.manual_seed(2)
    decoder = build_decoder(config(family), 9, features=F).train()
    words = torch.randint(4, 9, (2 * P, 5))
    with torch.autocast("cpu", torch.bfloat16):
        loss = decoder(torch.randn(P, R, F), words, words)
    loss.backward()
    slope = decoder.get_parameter("pooling.project.weight").grad
    assert slope is not None and bool(torch.isfinite(slope).all()) and float(slope.abs().max()) > 0


def test_padded_regions_are_not_pooled() -> None:
    with pytest.raises(ValueError, match="fixed number of regions"):
        build_decoder(config("soft_attention"), 9, features=F).encode(torch.zeros(P, R, F), torch.ones(P, R))
