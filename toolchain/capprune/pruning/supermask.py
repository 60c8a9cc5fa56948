"""Supermask pruning: a learned gate for every weight.

Tan, Chan, Chuah, "End-to-End Supermask Pruning" (2021). Each prunable weight tensor W has a gate tensor M of the same
shape, trained with it. In training a mask drawn from Bernoulli(sigmoid(M)) multiplies the weights; in evaluation a
weight is kept where M > 0. Drawing and rounding pass gradients straight through to the probability, and the sigmoid is
differentiated as usual. The sparsity loss is taken on the hard masks:

    L = L_caption + lambda * a(t) * |s_target - s|,    a(t) = (1 - cos(pi * t / T)) / 2
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class _MaskedWeight(torch.autograd.Function):
    """weight * mask, with the straight-through gradient for the gate."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, weight: Tensor, gate: Tensor) -> Tensor:
        probability = torch.sigmoid(gate)
        mask = torch.bernoulli(probability)
        ctx.save_for_backward(weight, probability, mask)
        return weight * mask

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        weight, probability, mask = ctx.saved_tensors  # type: ignore[attr-defined]
        slope = torch.addcmul(probability, probability, probability, value=-1)  # s (1 - s)
        return gradient * mask, slope.mul_(weight).mul_(gradient)


class _KeptCount(torch.autograd.Function):
    """The number of open gates, with the gradient of the probability."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, gate: Tensor) -> Tensor:
        ctx.save_for_backward(gate)
        return (gate > 0).sum().to(torch.float64)  # float32 would round past 2**24 weights

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        probability = torch.sigmoid(ctx.saved_tensors[0])  # type: ignore[attr-defined]
        return torch.addcmul(probability, probability, probability, value=-1).mul_(gradient)


class Gate(nn.Module):
    """A parametrization that multiplies a weight by its supermask.

    Attributes:
        gate: M, the shape of the weight.
    """

    def __init__(self, weight: Tensor, initial: float = 5.0) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full_like(weight, initial))

    def forward(self, weight: Tensor) -> Tensor:
        """A sampled mask in training, the hard mask in evaluation."""
        if self.training:
            masked: Tensor = _MaskedWeight.apply(weight, self.gate)  # type: ignore[no-untyped-call]
            return masked
        return weight * (self.gate > 0)


class Supermask:
    """The gates of one model, as a whole.

    Args:
        model: Gates are added to its matrices in place; biases and normalisation stay free.
        initial: Where every gate starts.
        modules: The modules whose `weight` is gated; every linear layer and embedding when left out.
    """

    def __init__(self, model: nn.Module, *, initial: float = 5.0, modules: Iterable[str] | None = None) -> None:
        wanted = None if modules is None else set(modules)
        self._gated: dict[str, Gate] = {}
        for name, module in list(model.named_modules()):
            prunable = isinstance(module, nn.Linear | nn.Embedding) if wanted is None else name in wanted
            if prunable:
                gate = Gate(module.weight, initial)
                parametrize.register_parametrization(module, "weight", gate)
                self._gated[f"{name}.weight"] = gate

    @property
    def gates(self) -> dict[str, Tensor]:
        """Every gate tensor under the name of its weight."""
        return {name: gate.gate for name, gate in self._gated.items()}

    @property
    def size(self) -> int:
        """Prunable weights in all."""
        return sum(gate.numel() for gate in self.gates.values())

    def kept(self) -> dict[str, int]:
        """Open gates in each tensor."""
        return {name: int((gate > 0).sum()) for name, gate in self.gates.items()}

    def sparsity(self) -> float:
        """Share of the prunable weights whose gate is closed."""
        return 1 - sum(self.kept().values()) / self.size

    def loss(self, target: float) -> Tensor:
        """|target - sparsity| over all layers together, on hard masks, with straight-through gradients."""
        counts = [_KeptCount.apply(gate) for gate in self.gates.values()]  # type: ignore[no-untyped-call]
        kept = torch.stack(counts).sum()
        return (target - (1 - kept / self.size)).abs()

    @staticmethod
    def one_sample() -> AbstractContextManager[None]:
        """While open, every mask is drawn once and kept: one sample a training step, whatever the caption's length."""
        context: AbstractContextManager[None] = parametrize.cached()
        return context


def ramp(step: int, steps: int) -> float:
    """a(t): the pull of the sparsity loss, from 0 to 1 over the run along an inverted cosine."""
    return (1 - math.cos(math.pi * min(1.0, step / steps))) / 2


_ORIGINAL, _GATE = ".parametrizations.weight.original", ".parametrizations.weight.0.gate"


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state with `X.weight` and, where pruned, `X.weight.gate`, whatever parametrizations call them."""
    return {
        name.replace(_ORIGINAL, ".weight").replace(_GATE, ".weight.gate"): value
        for name, value in model.state_dict().items()
    }


def load_plain_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The way back from `plain_state`, into a model with the same gates."""
    own = dict(zip(plain_state(model), model.state_dict(), strict=True))
    model.load_state_dict({own.get(name, name): value for name, value in state.items()})
