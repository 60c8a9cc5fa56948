"""Supermask pruning as a pruner: the gates, their pull and their floor."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from capprune.config import PruningConfig
from capprune.pruning.dynamics import sparsity_weight
from capprune.pruning.pruner import TargetedPruner
from capprune.pruning.supermask import Supermask, ramp

JUST_OPEN = 1e-3  # where a gate is put that the floor keeps: open, and free to rise or be chosen again


class SupermaskPruner(TargetedPruner):
    """Gates that learn with the weights; see `capprune.pruning.supermask`.

    Args:
        model: Gets gates in place.
        config: Of the run.
        steps: T, training steps in all.

    Raises:
        UnreachableTarget: If the run is too short or its pull too weak.
    """

    def __init__(self, model: nn.Module, config: PruningConfig, *, steps: int) -> None:
        super().__init__(model, config)
        self.supermask = Supermask(model, initial=config.initial_gate, modules=self.layers, widths=self.blocks.widths)
        self.gates = self.supermask.gates
        self.pull = sparsity_weight(config, steps=steps, size=self.supermask.size)
        self._steps = steps

    def loss(self, step: int) -> Tensor:
        """|target - sparsity| on hard masks."""
        return self.supermask.loss(self.config.sparsity)

    def weight(self, step: int) -> float:
        """lambda * a(t)."""
        return self.pull * ramp(step, self._steps)

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Reopen the highest gates of a layer that fell below its floor."""
        if not self.config.least_kept:
            return
        for gate in self.gates.values():
            least = math.ceil(self.config.least_kept * gate.numel())
            if int((gate > 0).sum()) < least:
                highest = gate.flatten().topk(least).indices
                gate.view(-1)[highest] = gate.view(-1)[highest].clamp_min(JUST_OPEN)

    def sparsity(self) -> float:
        """Share of the prunable weights whose gate is closed."""
        return self.supermask.sparsity()

    def kept(self) -> Mapping[str, int]:
        """Weights behind open gates in each tensor."""
        return self.supermask.kept()
