"""The recurrence and its written-out gradient, beside autograd through one step after the other."""

from __future__ import annotations

import gc
import weakref
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from capprune.models import recurrence, unrolled
from capprune.models.recurrence import Weights, recur
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig

Cell = Literal["lstm", "gru"]
STEPS, PHOTOS, CAPTIONS, REGIONS, E, H, A, C = 4, 3, 2, 5, 4, 6, 7, 8
both_cells = pytest.mark.parametrize("cell", ["lstm", "gru"])


def leaves(cell: Cell, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """words, keys, values, h, dropped and the weights."""
    torch.manual_seed(0)
    rows = PHOTOS * CAPTIONS
    shapes = [(STEPS, rows, E), (PHOTOS, REGIONS, A), (PHOTOS, REGIONS, C), (rows, H)]
    shapes += [(STEPS, PHOTOS, CAPTIONS, REGIONS), (A, H), (1, A)]
    gates = 4 * H if cell == "lstm" else 2 * H
    shapes += [(gates, E + C + H), (gates,)]
    shapes += [] if cell == "lstm" else [(H, E + C + H), (H,)]
    made = [torch.randn(shape, dtype=dtype) for shape in shapes]
    made[4] = made[4].exp()  # what attention is multiplied by
    return [one.requires_grad_(index != 4) for index, one in enumerate(made)]


def ours(arguments: list[Tensor]) -> Tensor:
    return recur(*arguments[:5], Weights(*arguments[5:]))


def one_step_after_the_other(arguments: list[Tensor]) -> Tensor:
    words, keys, values, h, dropped, query, score, rnn, bias, *candidate = arguments
    c, found = torch.zeros_like(h), []
    for word, keep in zip(words, dropped, strict=True):
        asked = F.linear(h, query).view(PHOTOS, CAPTIONS, 1, A)
        shares = torch.softmax((torch.tanh(keys.unsqueeze(1) + asked) * score[0]).sum(-1), -1)
        x = torch.cat([word, torch.bmm(shares * keep, values).flatten(0, 1)], 1)
        gates = F.linear(torch.cat([x, h], 1), rnn, bias)
        if candidate:
            reset, update = torch.sigmoid(gates).chunk(2, 1)
            h = update * h + (1 - update) * torch.tanh(F.linear(torch.cat([x, reset * h], 1), *candidate))
        else:
            into, forget, cell, out = gates.chunk(4, 1)
            c = torch.sigmoid(forget) * c + torch.sigmoid(into) * torch.tanh(cell)
            h = torch.sigmoid(out) * torch.tanh(c)
        found.append(h)
    return torch.stack(found)


@both_cells
def test_states_and_all_gradients_are_those_of_autograd(cell: Cell) -> None:
    arguments = leaves(cell)
    found, expected = ours(arguments), one_step_after_the_other(arguments)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    learned = [one for one in arguments if one.requires_grad]
    gradients = [torch.autograd.grad(states, learned, upstream) for states in (found, expected)]
    for index, (one, other) in enumerate(zip(*gradients, strict=True)):
        torch.testing.assert_close(one, other, msg=f"argument {index}")


@both_cells
def test_a_weight_that_is_laid_out_gives_the_products_of_one_that_is_not(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = leaves(cell, torch.float32)
    found = ours(arguments)
    asked: list[int] = []

    def plain(weight: Tensor, rows: int) -> unrolled.Product:
        asked.append(rows)
        return lambda x: F.linear(x, weight)

    monkeypatch.setattr(unrolled, "product", plain)
    monkeypatch.setattr(recurrence, "product", plain)
    torch.testing.assert_close(ours(arguments), found)
    assert set(asked) == {PHOTOS * CAPTIONS}


def test_products_do_without_a_library_that_lays_weights_out(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = torch.randn(6, 5), torch.randn(3, 5)
    found = unrolled.product(weight, 3)(x)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    torch.testing.assert_close(unrolled.product(weight, 3)(x), found)


@both_cells
def test_bfloat16_is_close_to_float32(cell: Cell) -> None:
    torch.manual_seed(0)
    shape = SoftAttentionConfig(cell=cell, embedding=16, hidden=64, attention=32, context=32)
    decoder = SoftAttention(shape, features=24, vocabulary=40).eval()
    features, ids = torch.randn(3, 4, 24), torch.randint(4, 40, (6, 7))
    loss = decoder(features, ids, ids)
    loss.backward()
    exact = {name: parameter.grad.clone() for name, parameter in decoder.named_parameters()}
    decoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = decoder(features, ids, ids)
    narrow.backward()
    assert float(narrow.detach()) == pytest.approx(float(loss.detach()), rel=2e-2)
    for name, parameter in decoder.named_parameters():
        assert parameter.grad.dtype == torch.float32
        cosine = torch.cosine_similarity(parameter.grad.flatten(), exact[name].flatten(), dim=0)
        assert float(cosine) > 0.99, name


def test_what_a_batch_kept_is_freed_without_the_collector() -> None:
    runs: list[weakref.ref[object]] = []
    gc.disable()
    try:
        arguments = leaves("lstm")
        hidden = ours(arguments)
        runs.append(weakref.ref(hidden.grad_fn.run))
        hidden.sum().backward()
        assert runs[0]() is None
        unused = ours(arguments)  # a loss that nobody differentiates
        runs.append(weakref.ref(unused.grad_fn.run))
        del unused
        assert runs[1]() is None
    finally:
        gc.enable()
