"""The scores of additive attention, v · tanh(key + query), with a gradient that goes over the regions' channels only twice.

Autograd would keep five tensors of that size and add up both broadcasts one after the other. And where products are
bfloat16 it would take tanh of that type, which a CPU computes several times slower than that of float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

PIECE = 1 << 17  # numbers


def additive_scores(keys: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    """How much each caption looks at each region of its photo, before the softmax.

    Args:
        keys: `(P, R, A)`.
        query: `(P, n, A)`, of the n captions of each photo.
        weight: v, `(1, A)`.

    Returns:
        `(P, n, R)`; float32 where the arguments are bfloat16.
    """
    scores: Tensor = _Scores.apply(keys, query, weight)  # type: ignore[no-untyped-call]
    return scores


class _Scores(Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, query: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            k, q, v = wide(keys), wide(query), wide(weight)[0]
            bent = k.new_empty(*q.shape[:2], *k.shape[1:])  # (P, n, R, A)
            scores = k.new_empty(bent.shape[:3])
            for some_keys, some_query, some, found in _pieces(bent, k, q, bent, scores):
                torch.add(some_keys.unsqueeze(1), some_query.unsqueeze(2), out=some).tanh_()
                torch.matmul(some, v, out=found)
        ctx.save_for_backward(bent, v)
        ctx.dtypes = keys.dtype, query.dtype, weight.dtype
        return scores

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bent, v = ctx.saved_tensors
        photos, captions, regions, channels = bent.shape
        with torch.autocast("cpu", enabled=False):
            keys, query = v.new_empty(photos, regions, channels), v.new_empty(photos, captions, channels)
            weight = torch.zeros_like(v)
            for some, above, of_keys, of_query in _pieces(bent, bent, gradient, keys, query):
                rows = above.reshape(-1, 1, regions)
                weight.addmv_(some.flatten(0, 2).t(), above.reshape(-1))
                slope = torch.addcmul(v.new_ones(()), some, some, value=-1)
                of_query.copy_(torch.bmm(rows, slope.flatten(0, 1)).view_as(of_query))
                torch.sum(slope.mul_(above.unsqueeze(-1)), 1, out=of_keys)
            keys.mul_(v)
            query.mul_(v)
        of_keys, of_query, of_weight = ctx.dtypes
        return keys.to(of_keys), query.to(of_query), weight.unsqueeze(0).to(of_weight)


def _pieces(bent: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same photos of all tensors, so many at a time that their part of `bent` stays in the cache."""
    photos = max(1, PIECE // bent[0].numel())
    return zip(*(torch.split(tensor, photos) for tensor in tensors), strict=True)


def wide(x: Tensor) -> Tensor:
    """In float32 what is bfloat16; anything else as it is."""
    return x.float() if x.dtype is torch.bfloat16 else x
