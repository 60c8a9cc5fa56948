"""Scores of additive attention, v · tanh(key + query), with a gradient that passes over the regions' channels only twice.

Autograd would store five tensors of that size and sum both broadcasts separately. With bfloat16 products it would also
compute tanh in bfloat16, which is several times slower on a CPU than in float32.

Shapes: P photos, n captions of each, R regions, A attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from capprune.models.devices import cpu_kernel, no_autocast, on_cpu

PIECE = 1 << 17  # elements per piece


def additive_scores(keys: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    """Return the attention scores of each caption for each region of its photo, before the softmax.

    Args:
        keys: `(P, R, A)`.
        query: `(P, n, A)`, for the n captions of each photo.
        weight: v, `(1, A)`.

    Returns:
        `(P, n, R)`; float32 if the arguments are bfloat16 or float16.
    """
    if not on_cpu(keys):
        return plain_scores(keys, query, weight)
    return _in_pieces(keys, query, weight)


@cpu_kernel
def _in_pieces(keys: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    scores: Tensor = _Scores.apply(keys, query, weight)  # type: ignore[no-untyped-call]
    return scores


def plain_scores(keys: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    """Compute `additive_scores` with plain operators, on every device."""
    with no_autocast(keys.device):
        bent = torch.tanh(wide(keys).unsqueeze(1) + wide(query).unsqueeze(2))  # (P, n, R, A)
        return bent @ wide(weight)[0]


def attend(
    query: Tensor, keys: Tensor, values: Tensor, weight: Tensor, fillers: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attend to the regions of a photo.

    With one caption per photo, the products have one row, and elementwise operators take half their time in XNNPACK. This
    form is exported.

    Args:
        query: `(B, A)`, B = P n; the captions of a photo are adjacent.
        keys: `(P, R, A)`.
        values: `(P, R, C)`.
        weight: v, `(1, A)`.
        fillers: `(P, R)`, added to the scores to mask padding; None if there is none.

    Returns:
        The context `(B, C)` and the attention `(B, R)`, which sums to 1.
    """
    photos, regions, width = keys.shape
    if photos == query.shape[0]:  # not len(), which would fix B in an exported graph
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
    """Return the scores `(P, n, R)` of float32 arguments.

    Args:
        keys: `(P, R, A)`.
        query: `(P, n, A)`.
        v: `(A,)`.
        bent: `(P, n, R, A)`, receives tanh(key + query) for `unbend`.
    """
    scores = v.new_empty(bent.shape[:3])
    for some_keys, some_query, some, found in _pieces(bent, keys, query, bent, scores):
        torch.add(some_keys.unsqueeze(1), some_query.unsqueeze(2), out=some).tanh_()
        torch.matmul(some, v, out=found)
    return scores


def unbend(bent: Tensor, gradient: Tensor, v: Tensor, of_keys: Tensor, of_weight: Tensor) -> Tensor:
    """Backpropagate a gradient `(P, n, R)` of the scores.

    Args:
        bent: The tensor that `bend` filled.
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
    """Iterate over the same photos of all tensors, in pieces whose part of `bent` fits into the cache."""
    photos = max(1, PIECE // bent[0].numel())
    return zip(*(torch.split(tensor, photos) for tensor in tensors), strict=True)


def wide(x: Tensor) -> Tensor:
    """Convert bfloat16 and float16 to float32; return other types unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
