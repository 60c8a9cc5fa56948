"""Conversion between tensors and those of a small checkpoint; `capprune.training.slim` describes the layout."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

KEPT, BITS, SHAPES = ".kept", ".bits", "shapes"


def slimmed(
    weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Return the tensors of a small checkpoint, and the shapes that cannot be read from them.

    Args:
        weights: Weights by name.
        masks: For every pruned weight which entries are kept, of the weight's shape.
    """
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name in masks:
            kept = masks[name].bool()
            tensors[name + KEPT] = weight[kept].half()
            tensors[name + BITS] = torch.from_numpy(np.packbits(kept.numpy()))
        else:  # biases and the statistics of norms are few and may have large values, so they stay float32
            tensors[name] = weight.half() if weight.is_floating_point() and weight.ndim > 1 else weight
    return tensors, {name: list(weights[name].shape) for name in masks}


def widened(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return float32 weights, and the masks of the slimmed ones; the inverse of `slimmed`.

    Raises:
        KeyError: A tensor or a shape is missing.
        ValueError: Sizes do not fit each other.
    """
    shapes = json.loads(facts.get(SHAPES, "{}"))
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
        if not name.endswith((KEPT, BITS))
    }
    masks = {}
    for name, shape in shapes.items():
        bits, kept, size = tensors[name + BITS], tensors[name + KEPT], int(np.prod(shape))
        if bits.dtype != torch.uint8 or bits.numel() != -(-size // 8):
            raise ValueError(f"{bits.numel()} bytes of bits do not fit {name} of {size} weights")
        mask = torch.from_numpy(np.unpackbits(bits.numpy(), count=size).astype(bool)).reshape(shape)
        if int(mask.sum()) != kept.numel():
            raise ValueError(f"{kept.numel()} weights do not fit the {int(mask.sum())} bits of {name}")
        masks[name] = mask
        weights[name] = torch.zeros(shape).masked_scatter_(mask, kept.float())
    return weights, masks
