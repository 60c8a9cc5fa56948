"""Multiplies weights by masks drawn from gates, with straight-through gradients, one piece of the tensors at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from capprune.models.chance import Draws
from capprune.models.devices import cpu_kernel, on_cpu, precise

PIECE = 1 << 16  # entries per piece; small enough for the intermediate results to fit into the cache


def masked_weight(weight: Tensor, gate: Tensor, kind: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Multiply a weight by a mask drawn from its gates.

    Args:
        weight: `(N, K)`.
        gate: `(N, K / B)`, one for B weights in a row.
        kind: Type of the result; by default the weight's own type.

    Returns:
        The masked weight, and the number of weights behind open gates as float64.
    """
    if not on_cpu(weight):
        return plain_masked_weight(weight, gate, torch.bernoulli(torch.sigmoid(gate.detach())), kind)
    return _drawn(weight, gate, kind or weight.dtype)


@cpu_kernel
def _drawn(weight: Tensor, gate: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    function = _MaskedWeight if gate.shape == weight.shape else _MaskedBlocks
    masked, kept = function.apply(weight, gate, kind)  # type: ignore[no-untyped-call]
    return masked, kept


def plain_masked_weight(
    weight: Tensor, gate: Tensor, mask: Tensor, kind: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Compute `masked_weight` with plain operators, on every device.

    Args:
        weight: `(N, K)`.
        gate: `(N, K / B)`.
        mask: The drawn mask, zeros and ones of the gate's shape.
        kind: Type of the result; by default the weight's own type.
    """
    width = weight.shape[-1] // gate.shape[-1]
    probability = torch.sigmoid(gate)
    straight = (
        mask + (probability - probability.detach()) / width
    )  # the mean gradient of a block's weights, not the sum
    spread = straight if width == 1 else straight.repeat_interleave(width, -1)
    return (weight * spread).to(kind or weight.dtype), plain_kept_count(gate, width)


def plain_kept_count(gate: Tensor, width: int) -> Tensor:
    """Compute `kept_count` with plain operators, on every device."""
    probability = torch.sigmoid(gate)
    kind = precise(gate.device)
    return width * (gate > 0).sum(dtype=kind) + (probability - probability.detach()).sum(dtype=kind)


def kept_count(gate: Tensor, width: int) -> Tensor:
    """Return only the second result of `masked_weight`, without sampling, for gates of `width` weights."""
    if not on_cpu(gate):
        return plain_kept_count(gate, width)
    kept: Tensor = _KeptCount.apply(gate, width)  # type: ignore[no-untyped-call]
    return kept


def open_gates(gate: Tensor) -> int:
    """Return the number of gates above 0. On a CPU, NumPy compares several times faster than torch."""
    if not on_cpu(gate):
        return int((gate.detach() > 0).sum())
    return int(np.count_nonzero(gate.detach().numpy() > 0))


class _MaskedWeight(Function):
    """weight * mask; the gradient of a gate is s(1 - s) (weight * dL/dmasked + dL/dkept)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gate: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        masked = torch.empty_like(weight, dtype=kind, memory_format=torch.contiguous_format)
        mask = torch.empty_like(masked, dtype=torch.uint8)  # a quarter of the memory traffic
        draws, scratch, opened_gates = Draws(), weight.new_empty(min(PIECE, weight.numel())), 0
        for own, opened, kept, product in _pieces(weight, gate, mask, masked):
            wide = scratch[: len(opened)]
            kept.copy_(draws.keep(torch.sigmoid(opened, out=wide)))
            product.copy_(wide.copy_(kept).mul_(own))
            opened_gates += open_gates(opened)
        ctx.save_for_backward(weight, gate, mask)
        return masked, torch.tensor(opened_gates, dtype=torch.float64)  # float32 would round past 2**24 weights

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_kept: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, gate, mask = ctx.saved_tensors
        of_weight, of_gate = (torch.empty_like(weight, memory_format=torch.contiguous_format) for _ in range(2))
        pull, scratch = float(of_kept), weight.new_empty(min(PIECE, weight.numel()))
        for own, opened, kept, above, below, slope in _pieces(weight, gate, mask, gradient, of_weight, of_gate):
            wide = scratch[: len(above)].copy_(above)
            below.copy_(kept).mul_(wide)
            torch.sigmoid(opened, out=slope)
            torch.addcmul(slope, slope, slope, value=-1, out=slope)
            slope.mul_(wide.mul_(own).add_(pull))
        return of_weight, of_gate, None


class _MaskedBlocks(Function):
    """`_MaskedWeight` with gates `(N, K / B)` for blocks of B weights: one draw per gate, and the mean of its gradients."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gate: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        mask = Draws().keep(torch.sigmoid(gate)).to(weight.dtype)
        ctx.save_for_backward(weight, gate, mask)
        blocks = _in_blocks(weight, gate)
        kept = torch.tensor(blocks.shape[-1] * open_gates(gate), dtype=torch.float64)
        return blocks.mul(mask.unsqueeze(-1)).flatten(-2).to(kind), kept

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_kept: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, gate, mask = ctx.saved_tensors
        blocks = _in_blocks(gradient.to(weight.dtype), mask)  # (N, K / B, B)
        mean = torch.linalg.vecdot(blocks, _in_blocks(weight, mask)).div_(blocks.shape[-1])
        return blocks.mul(mask.unsqueeze(-1)).flatten(-2), _slope(gate).mul_(mean.add_(float(of_kept))), None


class _KeptCount(Function):
    """Only the number of weights behind open gates, with the same gradient: the mean over a gate's weights."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, width: int) -> Tensor:
        ctx.save_for_backward(gate)
        return torch.tensor(width * open_gates(gate), dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _slope(ctx.saved_tensors[0]).mul_(float(gradient)), None


def _slope(gate: Tensor) -> Tensor:
    probability = torch.sigmoid(gate)
    return torch.addcmul(probability, probability, probability, value=-1)  # s (1 - s)


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Iterate over views of the same entries of all tensors, which have one shape. Output tensors must be contiguous."""
    return zip(*(torch.split(tensor.contiguous().view(-1), PIECE) for tensor in tensors), strict=True)


def _in_blocks(weight: Tensor, gate: Tensor) -> Tensor:
    """Return a weight `(N, K)` as `(N, K / B, B)`."""
    return weight.contiguous().view(*gate.shape, -1)
