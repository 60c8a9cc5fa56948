"""Conversion between tensors and those of a small checkpoint; `capprune.training.slim` describes the layout."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from capprune_exporters.steps import whole_steps

KEPT, BITS, SHAPES = ".kept", ".bits", "shapes"
CODES, STEPS = ".codes", ".steps"
FILTERS = 4  # dimensions of a convolution's weight


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
        elif weight.ndim == FILTERS and (steps := _steps(weight)) is not None:
            steps_of_all = steps.reshape(-1, 1, 1, 1)
            tensors[name + CODES] = (weight / steps_of_all.where(steps_of_all > 0, 1)).round().to(torch.int8)
            tensors[name + STEPS] = steps
        else:  # biases and the statistics of norms are few and may have large values, so they stay float32
            tensors[name] = weight.half() if weight.is_floating_point() and weight.ndim > 1 else weight
    return tensors, {name: list(weights[name].shape) for name in masks}


def _steps(weight: Tensor) -> Tensor | None:
    """Return the step of each filter `(O,)` of a rounded encoder, 0 for filters of zeros; None if any has no step."""
    rows = weight.reshape(len(weight), -1)
    steps = torch.from_numpy(whole_steps(rows.float().numpy().T))
    return steps if bool(((steps > 0) | (rows == 0).all(1)).all()) else None


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
        if not name.endswith((KEPT, BITS, CODES, STEPS))
    }
    for name, codes in tensors.items():
        if name.endswith(CODES):
            plain = name.removesuffix(CODES)
            steps = tensors[plain + STEPS]
            if codes.ndim != FILTERS or steps.shape != codes.shape[:1]:
                raise ValueError(f"{steps.numel()} steps do not fit the filters {tuple(codes.shape)} of {plain}")
            weights[plain] = codes.float() * steps.reshape(-1, 1, 1, 1)
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
