"""The scores of additive attention, v · tanh(key + query), with a gradient that goes over the regions' channels only twice.

Autograd would keep five tensors of that size and add up both broadcasts one after the other. And where products are
bfloat16 it would take tanh of that type, which a CPU computes several times slower than that of float32.

Shapes: P photos, n captions of each, R regions, A attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from capprune.models.devices import no_autocast, on_cpu

PIECE = 1 << 17  # numbers


def additive_scores(keys: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    """How much each caption looks at each region of its photo, before the softmax.

    Args:
        keys: `(P, R, A)`.
        query: `(P, n, A)`, of the n captions of each photo.
        weight: v, `(1, A)`.

    Returns:
        `(P, n, R)`; float32 where the arguments are bfloat16 or float16.
    """
    if not on_cpu(keys):
        return plain_scores(keys, query, weight)
    scores: Tensor = _Scores.apply(keys, query, weight)  # type: ignore[no-untyped-call]
    return scores


def plain_scores(keys: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    """`additive_scores` with plain operators, on every device."""
    with no_autocast(keys.device):
        bent = torch.tanh(wide(keys).unsqueeze(1) + wide(query).unsqueeze(2))  # (P, n, R, A)
        return bent @ wide(weight)[0]


def attend(
    query: Tensor, keys: Tensor, values: Tensor, weight: Tensor, fillers: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Look at the regions of a photo.

    With one caption per photo the products have one row, and elementwise operators take half their time in XNNPACK. This is
    the form that is exported.

    Args:
        query: `(B, A)`, B = P n; the captions of a photo stand side by side.
        keys: `(P, R, A)`.
        values: `(P, R, C)`.
        weight: v, `(1, A)`.
        fillers: `(P, R)`, added to the scores; None where all are regions.

    Returns:
        The context `(B, C)` and the attention `(B, R)`, which sums to 1.
    """
    photos, regions, width = keys.shape
    if photos == query.shape[0]:  # no len(): it fixes B in an exported graph
        scores = (torch.tanh(keys + query.unsqueeze(1)) * weight).sum(-1)  # (B, R)
        attention = torch.softmax(scores if fillers is None else scores + fillers, dim=-1)
        return (attention.unsqueeze(-1) * values).sum(1), attention
    scores = additive_scores(keys, query.view(photos, -1, width), weight)  # (P, n, R)
    attention = torch.softmax(scores if fillers is None else scores + fillers.unsqueeze(1), dim=-1)
    context = torch.bmm(attention.to(values.dtype), values)  # (P, n, C)
    return context.flatten(0, 1), attention.view(-1, regions)


class _Scores(Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, query: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            k, q, v = wide(keys), wide(query), wide(weight)[0]
            bent = k.new_empty(*q.shape[:2], *k.shape[1:])
            scores = bend(k, q, v, bent)
        ctx.save_for_backward(bent, v)
        ctx.dtypes = keys.dtype, query.dtype, weight.dtype
        return scores

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bent, v = ctx.saved_tensors
        photos, _, regions, channels = bent.shape
        of_keys, of_weight = v.new_zeros(photos, regions, channels), torch.zeros_like(v)
        with torch.autocast("cpu", enabled=False):
            of_query = unbend(bent, gradient, v, of_keys, of_weight)
        keys, query, weight = ctx.dtypes
        return of_keys.mul_(v).to(keys), of_query.to(query), of_weight.unsqueeze(0).to(weight)


def bend(keys: Tensor, query: Tensor, v: Tensor, bent: Tensor) -> Tensor:
    """The scores `(P, n, R)`, of float32 arguments.

    Args:
        keys: `(P, R, A)`.
        query: `(P, n, A)`.
        v: `(A,)`.
        bent: `(P, n, R, A)`, for tanh(key + query), which `unbend` needs.
    """
    scores = v.new_empty(bent.shape[:3])
    for some_keys, some_query, some, found in _pieces(bent, keys, query, bent, scores):
        torch.add(some_keys.unsqueeze(1), some_query.unsqueeze(2), out=some).tanh_()
        torch.matmul(some, v, out=found)
    return scores


def unbend(bent: Tensor, gradient: Tensor, v: Tensor, of_keys: Tensor, of_weight: Tensor) -> Tensor:
    """What a gradient `(P, n, R)` of the scores is for what they were made of.

    Args:
        bent: As `bend` left it.
        gradient: Gradient of the scores.
        v: `(A,)`.
        of_keys: `(P, R, A)`; the gradient of the keys **before it is multiplied by v** is added to it.
        of_weight: `(A,)`; the gradient of v is added to it.

    Returns:
        The gradient of the query `(P, n, A)`.
    """
    photos, captions, regions, channels = bent.shape
    of_query = v.new_empty(photos, captions, channels)
    for some, above, query, keys in _pieces(bent, bent, gradient, of_query, of_keys):
        of_weight.addmv_(some.flatten(0, 2).t(), above.reshape(-1))
        slope = torch.addcmul(v.new_ones(()), some, some, value=-1)
        query.copy_(torch.bmm(above.reshape(-1, 1, regions), slope.flatten(0, 1)).view_as(query))
        keys.add_(slope.mul_(above.unsqueeze(-1)).sum(1))
    return of_query.mul_(v)


def _pieces(bent: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same photos of all tensors, so many at a time that their part of `bent` stays in the cache."""
    photos = max(1, PIECE // bent[0].numel())
    return zip(*(torch.split(tensor, photos) for tensor in tensors), strict=True)


def wide(x: Tensor) -> Tensor:
    """In float32 what is bfloat16 or float16; anything else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
