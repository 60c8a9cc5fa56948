"""A linear layer that a recurrent decoder applies at every word, with the gradient of its weight in one product.

Autograd would multiply and add a gradient of the weight's size at every word. Here the words' inputs and gradients are
kept and multiplied once, when the last of them has come back: less work, one rounding where the products are bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function


@dataclass
class _Kept:
    """What all words share. It must not hold the graph, which holds it: such a ring is never freed."""

    weight: Tensor  # (N, K)
    bias: Tensor | None
    inputs: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)


class Repeated:
    """`linear` for the words of one batch; to be used up by one backward pass.

    Args:
        linear: Its weight, masked or not, is read once. Under autocast the products are in autocast's type.
    """

    def __init__(self, linear: nn.Linear) -> None:
        weight, bias = linear.weight, linear.bias
        fast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if fast else weight.dtype
        self._kept = _Kept(weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype))
        self._anchor = _Weights.apply(weight, bias, self._kept)  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor) -> Tensor:
        """`(B, K)` to `(B, N)`."""
        y: Tensor = _Product.apply(x, self._anchor, self._kept)  # type: ignore[no-untyped-call]
        return y


class _Weights(Function):
    """Stands for the weight in the graph: its backward comes after that of every product."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, kept: _Kept) -> Tensor:
        ctx.kept = kept
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        kept: _Kept = ctx.kept
        gradients = torch.cat(kept.gradients)  # (words, N)
        weight = (gradients.t() @ torch.cat(kept.inputs)).float()
        kept.inputs.clear()
        kept.gradients.clear()
        return weight, None if kept.bias is None else gradients.sum(0, dtype=torch.float32), None


class _Product(Function):
    """x W^T + b; hands its part of the weight's gradient on for later."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, kept: _Kept) -> Tensor:
        narrow = x.to(kept.weight.dtype)
        ctx.kept, ctx.dtype = kept, x.dtype
        ctx.save_for_backward(narrow)
        return nn.functional.linear(narrow, kept.weight, kept.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        kept: _Kept = ctx.kept
        kept.inputs.append(ctx.saved_tensors[0])
        kept.gradients.append(gradient.contiguous())
        return (gradient @ kept.weight).to(ctx.dtype), gradient.new_zeros((), dtype=torch.float32), None
