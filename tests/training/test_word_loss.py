from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from capprune.training import word_loss as module
from capprune.training.word_loss import word_loss


@pytest.mark.parametrize("piece", [1, 40, 1 << 17], ids=["row by row", "two rows and a rest", "all at once"])
def test_loss_and_gradient_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    torch.manual_seed(0)
    scores = (30 * torch.randn(7, 20, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(20, (7,))
    for above in (1.0, 0.3):
        found, expected = above * word_loss(scores, targets), above * F.cross_entropy(scores, targets)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(one, scores)[0] for one in (found, expected)))


def test_bfloat16_scores_are_summed_in_float32() -> None:
    torch.manual_seed(1)
    scores, targets = torch.randn(300, 50).bfloat16().requires_grad_(), torch.randint(50, (300,))
    found, expected = word_loss(scores, targets), F.cross_entropy(scores.float(), targets)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected)
    gradient = torch.autograd.grad(found, scores)[0]
    assert gradient.dtype is torch.bfloat16
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, scores)[0], rtol=1e-2, atol=1e-6)


def test_scores_far_from_zero_stay_finite() -> None:
    scores = torch.tensor([[1e4, -1e4], [-1e4, -1e4]], requires_grad=True)
    loss = word_loss(scores, torch.tensor([0, 1]))
    torch.testing.assert_close(loss, F.cross_entropy(scores, torch.tensor([0, 1])))
    assert bool(torch.isfinite(torch.autograd.grad(loss, scores)[0]).all())
