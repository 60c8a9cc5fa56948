from __future__ import annotations

import pytest
import torch
from torch import Tensor

from capprune.models import additive
from capprune.models.additive import additive_scores


def arguments(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((5, 4, 6), (5, 3, 6), (1, 6))
    keys, query, weight = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return keys, query, weight


def by_autograd(keys: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    return (torch.tanh(keys.unsqueeze(1) + query.unsqueeze(2)) * weight[0]).sum(-1)


@pytest.mark.parametrize("piece", [1, 150, 1 << 17], ids=["photo by photo", "two photos and a rest", "all at once"])
def test_scores_and_their_gradients_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(additive, "PIECE", piece)
    leaves = arguments(torch.float64)
    upstream = torch.randn(5, 3, 4, dtype=torch.float64)
    scores, expected = additive_scores(*leaves), by_autograd(*leaves)
    torch.testing.assert_close(scores, expected)
    found = torch.autograd.grad(scores, leaves, upstream)
    for one, other in zip(found, torch.autograd.grad(expected, leaves, upstream), strict=True):
        torch.testing.assert_close(one, other)


def test_bfloat16_is_taken_as_float32_and_its_gradient_comes_back_as_bfloat16() -> None:
    leaves = arguments(torch.float32)
    narrow = [leaf.detach().bfloat16().requires_grad_() for leaf in leaves]
    with torch.autocast("cpu", torch.bfloat16):
        scores = additive_scores(*narrow)
    torch.testing.assert_close(scores, by_autograd(*(leaf.float() for leaf in narrow)))
    for gradient in torch.autograd.grad(scores.sum(), narrow):
        assert gradient.dtype is torch.bfloat16
