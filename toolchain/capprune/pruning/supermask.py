"""Supermask pruning: a learned gate for every weight, or for a block of consecutive weights in a row.

Tan, Chan, Chuah, "End-to-End Supermask Pruning" (2021). Each prunable weight tensor W has a gate tensor M of the same
shape, trained with it. In training a mask drawn from Bernoulli(sigmoid(M)) multiplies the weights; in evaluation a
weight is kept where M > 0. Drawing and rounding pass gradients straight through to the probability, and the sigmoid is
differentiated as usual. The sparsity loss is taken on the hard masks:

    L = L_caption + lambda * a(t) * |s_target - s|,    a(t) = (1 - cos(pi * t / T)) / 2

Block gates are not in the paper. A gate of width B masks B neighbours along the input, and M has shape (N, K / B).
Sparsity still counts weights. The gradient of a block gate is the mean over its weights, not their sum. The sparsity loss
therefore pulls every gate with lambda * a(t) * s(1 - s) / size, single and block gates close at the same time, and a weight
has the same price in both. (With the sum, blocks close long before single gates. With the mean for one loss and the sum
for the other, a block costs no more than a single weight, and layers without blocks lose too many weights.)

Costs are not in the paper either. With costs, s is the removed share of the total cost of the weights, and the gates of a
layer whose weights cost c times the mean are pulled c times as hard.
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
        width: Number of neighbours in a row that share a gate; divides K.
        multiplied: Whether the masked weight is used in matrix products only. It is then computed in autocast's type
            instead of being rounded to it later.
    """

    def __init__(self, weight: Tensor, initial: float = 5.0, width: int = 1, *, multiplied: bool = False) -> None:
        super().__init__()
        *rows, columns = weight.shape
        self.gate = nn.Parameter(weight.new_full((*rows, columns // width), initial))
        self.width, self.multiplied = width, multiplied
        self._counted: tuple[int, Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Apply a sampled mask in training and the hard mask in evaluation."""
        if not self.training:
            return weight * hard_mask(self.gate, weight, self.width)
        device = weight.device.type
        narrow = self.multiplied and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        masked, kept = masked_weight(weight, self.gate, torch.get_autocast_dtype(device) if narrow else None)
        self._counted = (self.gate._version, kept) if kept.requires_grad else None
        return masked

    def kept(self) -> Tensor:
        """Return the number of weights behind open gates, a float64 scalar with a gradient to the gates.

        If the mask was drawn and the gates have not changed since, the gradient goes through that draw, once. This needs
        one pass over the gates instead of two.
        """
        counted, self._counted = self._counted, None
        if counted and counted[0] == self.gate._version:
            return counted[1]
        return kept_count(self.gate, self.width)


class Supermask:
    """All gates of one model.

    Args:
        model: Gates are added to its matrices in place; biases and normalisation get none.
        initial: Initial value of every gate.
        modules: The modules whose `weight` is gated; by default every linear layer and embedding.
        widths: Number of neighbours in a row that share a gate in these modules; 1 elsewhere.
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
                # attention reads its score matrix, of one row, in float32; an embedding's gradient is a sum over many words
                multiplied = isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) > 1
                gate = Gate(module.weight, initial, (widths or {}).get(name, 1), multiplied=multiplied)
                # unsafe skips a first draw, which would only check that the shape does not change
                parametrize.register_parametrization(module, "weight", gate, unsafe=True)
                self._gated[f"{name}.weight"] = gate

    @property
    def gates(self) -> dict[str, Tensor]:
        """Gate tensors by the name of their weight."""
        return {name: gate.gate for name, gate in self._gated.items()}

    @property
    def size(self) -> int:
        """Total number of prunable weights."""
        return sum(gate.gate.numel() * gate.width for gate in self._gated.values())

    def kept(self) -> dict[str, int]:
        """Return the number of weights behind open gates in each tensor."""
        return {name: open_gates(gate.gate) * gate.width for name, gate in self._gated.items()}

    def sparsity(self) -> float:
        """Return the share of the prunable weights whose gate is closed."""
        return 1 - sum(self.kept().values()) / self.size

    def counts(self) -> dict[str, Tensor]:
        """Return `kept` as tensors with gradients, for the losses of one step."""
        return {name: gate.kept() for name, gate in self._gated.items()}

    def loss(
        self, target: float, costs: Mapping[str, float] | None = None, counts: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return |target - sparsity| over all layers, on hard masks, with straight-through gradients.

        Args:
            target: Share of the weights to remove; with costs, share of their total cost.
            costs: Cost of a kept weight of each tensor. Only the ratios matter; equal costs have no effect.
            counts: Result of `counts()`, which several losses can share.
        """
        shares = self.shares(costs) if costs else {}
        own = (counts or self.counts()).items()
        kept = torch.stack([shares.get(name, 1.0) * count for name, count in own]).sum()
        return (target - (1 - kept / self.size)).abs()

    def shares(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Return the costs scaled to a mean of 1 over all weights; exactly 1 for each if all are equal."""
        highest = max(costs[name] for name in self._gated)
        relative = {name: costs[name] / highest for name in self._gated}
        mean = sum(relative[name] * gate.gate.numel() * gate.width for name, gate in self._gated.items()) / self.size
        return {name: one / mean for name, one in relative.items()}

    @staticmethod
    def one_sample() -> AbstractContextManager[None]:
        """Return a context in which every mask is drawn once: one sample per training step, for captions of any length."""
        context: AbstractContextManager[None] = parametrize.cached()
        return context


def ramp(step: int, steps: int) -> float:
    """Return a(t), the factor of the sparsity loss, which rises from 0 to 1 over the run along an inverted cosine."""
    return (1 - math.cos(math.pi * min(1.0, step / steps))) / 2


def hard_mask(gate: Tensor, weight: Tensor, width: int = 1) -> Tensor:
    """Return which entries of a weight `(N, K)` its gates `(N, K / width)` keep, as booleans of the weight's shape.

    Raises:
        ValueError: If the gates do not fit the weight.
    """
    if gate.ndim == 0 or (*gate.shape[:-1], gate.shape[-1] * width) != weight.shape:
        raise ValueError(f"gates {tuple(gate.shape)} of width {width} do not fit weights {tuple(weight.shape)}")
    kept = gate > 0
    return kept if width == 1 else kept.repeat_interleave(width, dim=-1)
