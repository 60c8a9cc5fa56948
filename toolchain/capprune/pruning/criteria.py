"""Selects the weights to prune: exact top-k over saliencies, per layer or over all layers pooled.

The scopes are those of Tan, Chan and Chuah (2021): *blind* pools all layers, *uniform* removes the same share of each
layer, *distribution* pools the weights after standardising each layer by its mean and standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from capprune.config.pruning import Scope


def magnitudes(weights: Mapping[str, Tensor], scope: Scope) -> dict[str, Tensor]:
    """Return the saliency of every weight: |w|, or |(w - mean) / std| of its layer for the scope `distribution`."""
    if scope != "distribution":
        return {name: weight.detach().abs() for name, weight in weights.items()}
    return {
        name: ((weight.detach() - weight.mean()) / weight.std(correction=0).clamp_min(1e-12)).abs()
        for name, weight in weights.items()
    }


def in_blocks(saliency: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """Average the saliencies `(N, K)` of single weights over blocks, to `(N, K / B)`, in layers that have blocks."""
    return {
        name: value if widths.get(name, 1) == 1 else value.view(*value.shape[:-1], -1, widths[name]).mean(-1)
        for name, value in saliency.items()
    }


def keep_largest(
    saliency: Mapping[str, Tensor],
    sparsity: float,
    *,
    pooled: bool,
    least_kept: float = 0.0,
    widths: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """Return masks that keep the most salient gates, with exactly the given sparsity.

    Args:
        saliency: Saliency of every gate, by layer; tensors of any shape.
        sparsity: Share of the weights to remove, 0 to 1.
        pooled: Rank all layers together; otherwise each loses the same share.
        least_kept: Minimum share of every layer that is kept, whatever its rank.
        widths: Weights per gate, by layer; 1 by default. A pooled count is exact to one block.

    Returns:
        Booleans of the saliencies' shapes.
    """
    sizes = widths or {}
    if not pooled:
        return {
            name: _largest(value, max(_kept(value.numel(), sparsity), math.ceil(least_kept * value.numel())))
            for name, value in saliency.items()
        }
    floors = {name: _largest(value, math.ceil(least_kept * value.numel())) for name, value in saliency.items()}
    wanted = _kept(sum(value.numel() * sizes.get(name, 1) for name, value in saliency.items()), sparsity)
    ranks = torch.cat([value.masked_fill(floors[name], torch.inf).flatten() for name, value in saliency.items()])
    least = sum(int(floor.sum()) for floor in floors.values())
    if all(sizes.get(name, 1) == 1 for name in saliency):
        kept = _largest(ranks, max(wanted, least))
    else:
        weights = torch.cat(
            [
                ranks.new_full((value.numel(),), sizes.get(name, 1), dtype=torch.int64)
                for name, value in saliency.items()
            ]
        )
        order = torch.argsort(ranks, descending=True, stable=True)
        affordable = int((weights[order].cumsum(0) <= wanted).sum())
        kept = torch.zeros_like(ranks, dtype=torch.bool)
        kept[order[: max(affordable, least)]] = True
    parts = torch.split(kept, [value.numel() for value in saliency.values()])
    return {name: part.view_as(value) for (name, value), part in zip(saliency.items(), parts, strict=True)}


def _kept(size: int, sparsity: float) -> int:
    """Return the number of weights left of `size` when `int(sparsity * size)` are removed."""
    return size - int(sparsity * size + 1e-6)


def _largest(value: Tensor, count: int) -> Tensor:
    """Mark the `count` largest values, the first of equal ones. Avoids a full sort, which is many times slower."""
    flat = value.flatten()
    if count == 0:
        return torch.zeros_like(value, dtype=torch.bool)
    threshold = torch.kthvalue(flat, flat.numel() - count + 1).values
    kept = flat > threshold
    kept[(flat == threshold).nonzero().flatten()[: count - int(kept.sum())]] = True
    return kept.view_as(value)
