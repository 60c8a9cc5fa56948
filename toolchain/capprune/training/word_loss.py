"""Mean cross-entropy of words, with the gradient computed in the same pass, a few rows at a time.

`cross_entropy` of a batch writes five float32 tensors of the size of all scores. This one writes one tensor, of the
scores' own type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from capprune.models.devices import no_autocast, on_cpu

PIECE = 1 << 17  # scores per piece, so that a piece fits the cache


def word_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats per word.

    Args:
        scores: Raw scores, `(words, V)`.
        targets: Ids, `(words,)`.

    Returns:
        A scalar, float32 for bfloat16 and float16 scores.
    """
    if not on_cpu(scores):
        return plain_word_loss(scores, targets)
    loss: Tensor = _WordLoss.apply(scores, targets)  # type: ignore[no-untyped-call]
    return loss


def plain_word_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the same as `word_loss`, with standard operators, for every device."""
    with no_autocast(scores.device):
        return F.cross_entropy(scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores, targets)


class _WordLoss(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, targets: Tensor) -> Tensor:
        words, vocabulary = scores.shape
        gradient = torch.empty_like(scores)
        kind = torch.float32 if scores.dtype is torch.bfloat16 else scores.dtype
        losses = []
        rows = max(1, PIECE // vocabulary)
        pieces = (torch.split(tensor, rows) for tensor in (scores, targets.unsqueeze(1), gradient))
        for some, wanted, slope in zip(*pieces, strict=True):
            shares = some.to(kind)
            shares = shares - shares.amax(1, keepdim=True)
            picked = shares.gather(1, wanted)
            total = shares.exp_().sum(1, keepdim=True)
            losses.append((total.log() - picked).sum())
            shares.div_(total * words).scatter_add_(1, wanted, shares.new_full((), -1 / words).expand_as(wanted))
            slope.copy_(shares)
        ctx.save_for_backward(gradient)
        return torch.stack(losses).sum() / words

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient if float(above) == 1 else gradient * above.to(gradient.dtype), None
