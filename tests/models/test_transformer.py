from __future__ import annotations

import attentive_decoders as small_world
import pytest
import torch
from attentive_decoders import CAPTIONS, FAMILIES, PHOTOS, REGIONS, batch, small
from torch import nn
from torch.nn import functional as F

from capprune.models.chance import Dropout
from capprune.models.family import Decoder
from capprune.models.transformer import Norm, UnbiasedNorm, attend, attend_once, sinusoids

each_family = pytest.mark.parametrize("family", FAMILIES)


def test_norm_is_the_one_of_torch() -> None:
    norm, x = Norm(12), torch.randn(3, 5, 12) * 4 + 1
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    torch.testing.assert_close(norm(x), F.layer_norm(x, (12,), norm.weight, norm.bias))


def test_unbiased_norm_divides_by_the_unbiased_standard_deviation() -> None:
    x = torch.randn(3, 5) * 4 + 1
    expected = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(UnbiasedNorm(5)(x), expected)


@pytest.mark.parametrize("norm", [Norm(6), UnbiasedNorm(6)])
def test_constant_vector_has_a_finite_gradient(norm: nn.Module) -> None:
    x = torch.zeros(2, 6, requires_grad=True)
    norm(x).square().sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())


def test_attention_is_the_one_of_torch() -> None:
    query, keys, values = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    bias = torch.randn(3, 5)
    parts = (part.reshape(2, -1, 4, 2).transpose(1, 2) for part in (query, keys, values))
    expected = F.scaled_dot_product_attention(*parts, attn_mask=bias).transpose(1, 2).reshape(2, 3, 8)
    read, weights = attend(query, keys, values, 4, bias)
    torch.testing.assert_close(read, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 3))


def test_attention_of_one_query_is_that_of_many() -> None:
    query, keys, values, bias = torch.randn(2, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.randn(1, 5)
    read, weights = attend(query.unsqueeze(1), keys, values, 4, bias)
    once = attend_once(query, keys, values, 4, bias)
    torch.testing.assert_close(once, (read.squeeze(1), weights.squeeze(2).mean(1)))


def test_dropped_attention_is_not_read() -> None:
    query, keys, values = torch.randn(1, 2, 4), torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    read, weights = attend(query, keys, values, 1, dropout=Dropout(0.999).train())
    assert float(read.detach().abs().max()) == 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, 2))


def test_positions_are_sines_and_cosines_of_growing_waves() -> None:
    table = sinusoids(7, 6)
    assert table.shape == (7, 6)
    torch.testing.assert_close(table[:, 0], torch.arange(7.0).sin())
    torch.testing.assert_close(table[:, 3], (torch.arange(7.0) / 10_000 ** (1 / 3)).cos())


@each_family
def test_scores_of_whole_captions_are_those_of_one_step_after_the_other(family: str) -> None:
    decoder, (features, inputs, targets) = small(family), batch()
    assert inputs.shape[1] == small_world.MAX_TOKENS + 1
    expected = Decoder.scores(decoder, features, inputs, targets)
    torch.testing.assert_close(decoder.scores(features, inputs, targets), expected, atol=1e-5, rtol=1e-5)


@each_family
def test_word_depends_on_those_before_it_and_on_no_later_one(family: str) -> None:
    decoder, (features, inputs, _) = small(family), batch()
    targets = torch.zeros_like(inputs)
    before = decoder.scores(features, inputs, targets).reshape(*inputs.shape, -1)
    changed = inputs.clone()
    changed[:, 3] = (changed[:, 3] + 1) % small_world.VOCABULARY
    after = decoder.scores(features, changed, targets).reshape(*inputs.shape, -1)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert bool(((after - before)[:, 3:].abs().amax(-1) > 1e-4).all())


@each_family
def test_words_have_an_order(family: str) -> None:
    decoder, (features, inputs, _) = small(family), batch()
    swapped = inputs.clone()
    swapped[:, [1, 2]] = inputs[:, [2, 1]]
    last = torch.full_like(inputs, -1)
    last[:, -1] = 0
    different = (decoder.scores(features, inputs, last) - decoder.scores(features, swapped, last)).abs().amax(-1)
    assert bool((different[inputs[:, 1] != inputs[:, 2]] > 1e-3).all())


@each_family
def test_each_caption_sees_its_own_photo_only(family: str) -> None:
    decoder, (features, inputs, targets) = small(family), batch()
    together = decoder.scores(features, inputs, targets)
    alone = [
        decoder.scores(
            features[photo : photo + 1], *(ids.view(PHOTOS, CAPTIONS, -1)[photo] for ids in (inputs, targets))
        )
        for photo in range(PHOTOS)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together, decoder.scores(features.flip(0), inputs, targets), atol=1e-3)


@each_family
@pytest.mark.parametrize("captions", [1, CAPTIONS])
def test_attention_is_one_share_a_region_and_sums_to_one(family: str, captions: int) -> None:
    decoder, (features, _, _) = small(family), batch()
    held, first = decoder.encode(features)
    tokens = torch.arange(4, 4 + PHOTOS * captions)
    state = decoder.begin(first, len(tokens))
    attention = decoder.step(tokens, state, held, decoder.position_at(0, tokens)).attention
    assert attention is not None
    assert attention.shape == (len(tokens), REGIONS)
    torch.testing.assert_close(attention.sum(1), torch.ones(len(tokens)))
    assert float(attention.detach().std(1).min()) > 1e-4  # it looks somewhere


@each_family
def test_dropout_acts_in_training_only(family: str) -> None:
    decoder, arguments = small(family, dropout=0.5), batch()
    torch.testing.assert_close(decoder(*arguments), small(family)(*arguments))
    decoder.train()
    assert float(decoder(*arguments).detach()) != float(decoder(*arguments).detach())


@each_family
def test_every_weight_gets_a_gradient_in_bfloat16_as_well(family: str) -> None:
    decoder, arguments = small(family, dropout=0.0), batch()
    decoder.train()
    exact = decoder(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = decoder(*arguments)
    rounded.backward()
    assert float((rounded - exact).detach().abs()) < 0.05
    assert [name for name, one in decoder.named_parameters() if one.grad is None or not bool(one.grad.any())] == []


@each_family
def test_every_matrix_has_a_role_and_nothing_else_has(family: str) -> None:
    decoder = small(family)
    matrices = {name for name, one in decoder.named_modules() if isinstance(one, nn.Linear | nn.Embedding)}
    assert decoder.roles().keys() == matrices
    assert not any("norm" in name for name in matrices)
    others = {name for name, one in decoder.named_parameters() if name.removesuffix(".weight") not in matrices}
    assert all(decoder.get_parameter(name).ndim == 1 for name in others)


@each_family
def test_tables_are_in_no_checkpoint(family: str) -> None:
    decoder = small(family)
    assert decoder.state_dict().keys() == dict(decoder.named_parameters()).keys()
