from __future__ import annotations

import pytest
import torch
from attentive_decoders import MAX_TOKENS, batch, small
from pydantic import ValidationError

from capprune.models.retention import Retention, RetentionConfig, RetentionLayer, decays
from capprune.models.transformer import normalised

FAMILY = "retention"


def test_heads_forget_within_a_word_and_within_a_caption() -> None:
    gamma = decays(6)
    torch.testing.assert_close(gamma[[0, 5]], torch.tensor([1 / 2, 63 / 64]))
    assert bool((gamma.diff() > 0).all())
    assert decays(1).tolist() == [0.5]


def test_retention_is_a_decayed_sum_of_products_of_keys_and_values() -> None:
    decoder = small(FAMILY)
    layer = decoder.get_submodule("layers.0")
    assert isinstance(layer, RetentionLayer)
    words = torch.randn(1, 4, 32)
    seen = layer.norm(words)[0]
    heads = []
    for head in range(4):
        query, key = (part(seen)[:, head * 3 : head * 3 + 3] for part in (layer.query, layer.key))
        value = layer.value(seen)[:, head * 8 : head * 8 + 8]
        gamma = float(decays(4)[head])
        read = sum(gamma ** (3 - t) * (query[3] @ key[t]) * value[t] for t in range(4)) / 3**0.5
        heads.append(normalised(torch.as_tensor(read)))
    gated = torch.nn.functional.silu(layer.gate(seen[3])) * torch.cat(heads)
    torch.testing.assert_close(layer.read(words)[0, 3], words[0, 3] + layer.merge(gated), atol=1e-5, rtol=1e-5)


def test_state_has_the_same_size_at_every_word_and_there_is_no_position() -> None:
    decoder, (features, _, _) = small(FAMILY), batch()
    interface = decoder.interface()
    interface.check("manifest", MAX_TOKENS)
    assert not interface.position
    assert {name: (spec.shape, spec.carry) for name, spec in interface.state.items()} == {
        f"retained_{layer}": ((4, 3, 8), "replace") for layer in (0, 1)
    }
    held, first = decoder.encode(features)
    state = decoder.begin(first, 3)
    for token in (4, 5, 6):
        found = decoder.step(torch.full((3,), token), state, held)
        assert {name: part.shape for name, part in found.state.items()} == {n: p.shape for n, p in state.items()}
        state = decoder.advance(state, found, 0)


def test_width_must_divide_into_heads() -> None:
    with pytest.raises(ValidationError, match="width 20 is not a multiple of heads 8"):
        RetentionConfig(width=20, heads=8)


def test_any_number_of_regions_is_taken() -> None:
    Retention(RetentionConfig(), features=4, vocabulary=9, regions=10)
