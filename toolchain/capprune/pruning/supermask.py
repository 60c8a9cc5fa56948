"""Supermask pruning: a learned gate for every weight, or one for a block of weights in a row.

Tan, Chan, Chuah, "End-to-End Supermask Pruning" (2021). Each prunable weight tensor W has a gate tensor M of the same
shape, trained with it. In training a mask drawn from Bernoulli(sigmoid(M)) multiplies the weights; in evaluation a
weight is kept where M > 0. Drawing and rounding pass gradients straight through to the probability, and the sigmoid is
differentiated as usual. The sparsity loss is taken on the hard masks:

    L = L_caption + lambda * a(t) * |s_target - s|,    a(t) = (1 - cos(pi * t / T)) / 2

Block gates are ours: a gate of width B masks B neighbours along the input and M has shape (N, K / B). Sparsity counts
weights all the same. The gradient of a block gate is the mean over its weights, not their sum: so the sparsity loss
pulls at every gate with lambda * a(t) * s(1 - s) / size, single and block gates fall together, and where they settle a
weight is worth the same in either. (With the sum, blocks fall long before single gates; with the mean of one loss and
the sum of the other, a block costs no more than a single weight, and all that has no blocks starves.)

Costs are ours too: with them s is the share of all that weights can cost which is gone, and a gate of a layer whose weights
cost c times the mean is pulled c times as hard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from capprune.pruning.masking import kept_count, masked_weight, open_gates


class Gate(nn.Module):
    """A parametrization that multiplies a weight by its supermask.

    Attributes:
        gate: M, of shape `(N, K / width)` for a weight `(N, K)`.
        width: Neighbours in a row that share a gate; divides K.
        multiplied: Whether all that the masked weight is for are products: it is then made in the type that autocast has them
            in, not rounded to it later.
    """

    def __init__(self, weight: Tensor, initial: float = 5.0, width: int = 1, *, multiplied: bool = False) -> None:
        super().__init__()
        *rows, columns = weight.shape
        self.gate = nn.Parameter(weight.new_full((*rows, columns // width), initial))
        self.width, self.multiplied = width, multiplied
        self._counted: tuple[int, Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """A sampled mask in training, the hard mask in evaluation."""
        if not self.training:
            return weight * hard_mask(self.gate, weight, self.width)
        device = weight.device.type
        narrow = self.multiplied and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        masked, kept = masked_weight(weight, self.gate, torch.get_autocast_dtype(device) if narrow else None)
        self._counted = (self.gate._version, kept) if kept.requires_grad else None
        return masked

    def kept(self) -> Tensor:
        """Weights behind open gates, a float64 scalar whose gradient goes to the gates.

        Where the mask has been drawn and the gates have not moved since, the gradient goes through that draw, once: one
        pass over the gates instead of two.
        """
        counted, self._counted = self._counted, None
        if counted and counted[0] == self.gate._version:
            return counted[1]
        return kept_count(self.gate, self.width)


class Supermask:
    """The gates of one model, as a whole.

    Args:
        model: Gates are added to its matrices in place; biases and normalisation stay free.
        initial: Where every gate starts.
        modules: The modules whose `weight` is gated; every linear layer and embedding when left out.
        widths: How many neighbours in a row share a gate in these modules; 1 elsewhere.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        initial: float = 5.0,
        modules: Iterable[str] | None = None,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        wanted = None if modules is None else set(modules)
        self._gated: dict[str, Gate] = {}
        for name, module in list(model.named_modules()):
            prunable = isinstance(module, nn.Linear | nn.Embedding) if wanted is None else name in wanted
            if prunable:
                # attention reads the one row of its scores in float32, and an embedding's gradient is a sum over many words
                multiplied = isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) > 1
                gate = Gate(module.weight, initial, (widths or {}).get(name, 1), multiplied=multiplied)
                # unsafe leaves out a first draw that would only check what is known: the shape stays
                parametrize.register_parametrization(module, "weight", gate, unsafe=True)
                self._gated[f"{name}.weight"] = gate

    @property
    def gates(self) -> dict[str, Tensor]:
        """Every gate tensor under the name of its weight."""
        return {name: gate.gate for name, gate in self._gated.items()}

    @property
    def size(self) -> int:
        """Prunable weights in all."""
        return sum(gate.gate.numel() * gate.width for gate in self._gated.values())

    def kept(self) -> dict[str, int]:
        """Weights behind open gates in each tensor."""
        return {name: open_gates(gate.gate) * gate.width for name, gate in self._gated.items()}

    def sparsity(self) -> float:
        """Share of the prunable weights whose gate is closed."""
        return 1 - sum(self.kept().values()) / self.size

    def counts(self) -> dict[str, Tensor]:
        """`kept` with gradients, for the losses of one step."""
        return {name: gate.kept() for name, gate in self._gated.items()}

    def loss(
        self, target: float, costs: Mapping[str, float] | None = None, counts: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """|target - sparsity| over all layers together, on hard masks, with straight-through gradients.

        Args:
            target: Share of the weights that go; with costs, of all that they cost.
            costs: Cost of a kept weight of each tensor; only the ratios matter, and equal costs change nothing.
            counts: Result of `counts()`, to be reused for several losses.
        """
        shares = self.shares(costs) if costs else {}
        own = (counts or self.counts()).items()
        kept = torch.stack([shares.get(name, 1.0) * count for name, count in own]).sum()
        return (target - (1 - kept / self.size)).abs()

    def shares(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Costs so scaled that the mean over all weights is 1: exactly 1 for each where all are equal."""
        highest = max(costs[name] for name in self._gated)
        relative = {name: costs[name] / highest for name in self._gated}
        mean = sum(relative[name] * gate.gate.numel() * gate.width for name, gate in self._gated.items()) / self.size
        return {name: one / mean for name, one in relative.items()}

    @staticmethod
    def one_sample() -> AbstractContextManager[None]:
        """While open, every mask is drawn once and kept: one sample a training step, whatever the caption's length."""
        context: AbstractContextManager[None] = parametrize.cached()
        return context


def ramp(step: int, steps: int) -> float:
    """a(t): the pull of the sparsity loss, from 0 to 1 over the run along an inverted cosine."""
    return (1 - math.cos(math.pi * min(1.0, step / steps))) / 2


def hard_mask(gate: Tensor, weight: Tensor, width: int = 1) -> Tensor:
    """Which entries of a weight `(N, K)` its gates `(N, K / width)` keep, as booleans of the weight's shape.

    Raises:
        ValueError: If the gates do not fit the weight.
    """
    if gate.ndim == 0 or (*gate.shape[:-1], gate.shape[-1] * width) != weight.shape:
        raise ValueError(f"gates {tuple(gate.shape)} of width {width} do not fit weights {tuple(weight.shape)}")
    kept = gate > 0
    return kept if width == 1 else kept.repeat_interleave(width, dim=-1)
