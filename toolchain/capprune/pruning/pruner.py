"""The interface of all pruning methods. The base class prunes nothing and serves dense runs.

The training loop calls a pruner before the first step and before and after each step. A pruner can add terms to the loss
and have parameters with their own learning rate. It reports the sparsity of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from capprune.config.pruning import PruningConfig
from capprune.pruning.blocks import Blocks, find_blocks
from capprune.pruning.layers import prunable_layers


@dataclass(frozen=True)
class PrunedRun:
    """Properties of the training run that a pruner may use.

    Attributes:
        steps: T, total number of training steps.
        epoch: Steps per epoch.
        weights: Trained weights of the run that this one starts from, by name; empty if there is none.
        masks: Masks of that run, booleans of the weights' shapes; empty if it was dense.
    """

    steps: int
    epoch: int
    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]


class Pruner:
    """Base class of the pruners; prunes nothing.

    Attributes:
        blocks: Layers that are pruned in blocks.
        gates: Learned gates, by the name of their weight.
        gate_learning_rate: Constant learning rate of the gates (Adam).
        gate_adam_eps: Epsilon of the gates' Adam.
        needs_loss: Whether `begin` requires the caption loss of a batch.
    """

    needs_loss = False

    def __init__(self) -> None:
        self.blocks = Blocks()
        self.gates: Mapping[str, Tensor] = {}
        self.gate_learning_rate, self.gate_adam_eps = 0.0, 0.0

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """Create the pruner of a run and add its gates or masks to the model.

        Args:
            model: The decoder, and the encoder if it is trained, with the weights that the run starts from.
            config: The keys under `pruning`.
            run: Length of the run, and the weights and masks that it starts from.

        Raises:
            UnreachableTarget: If the run cannot reach its target.
            ConfigError: If the config names layers that the model does not have.
        """
        return cls()

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Set the masks that are chosen before the first step.

        Args:
            loss: Function that computes the caption loss of one batch, if `needs_loss`; else None.
        """

    def before(self, step: int) -> None:
        """Update the masks according to the schedule, before a step (counted from 0)."""

    def losses(self, step: int) -> list[tuple[float, Tensor]]:
        """Return the terms added to the caption loss in a step, as pairs of a factor and a loss."""
        return []

    def after(self, step: int) -> None:
        """Enforce the bounds of the gates after the optimiser's step."""

    def sparsity(self) -> float | None:
        """Return the share of the prunable weights that are removed; None for a dense run."""
        return None

    def kept(self) -> Mapping[str, int]:
        """Return the number of weights that each pruned tensor keeps."""
        return {}

    def costs(self) -> dict[str, float]:
        """Return the current cost of the model, in bytes or microseconds, for every limit that the config sets."""
        return {}

    def at_target(self) -> bool:
        """Return whether the current masks meet the configured sparsity."""
        return True

    def reach_target(self) -> int:
        """Force the masks onto the target after the last step. Returns the number of gates changed."""
        return 0


class TargetedPruner(Pruner):
    """Base class of the methods that prune to a configured share of the weights.

    Args:
        model: The model whose layers are pruned.
        config: The run's config.

    Raises:
        ConfigError: If the config names layers that the model does not have.
    """

    def __init__(self, model: nn.Module, config: PruningConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = prunable_layers(model, config)
        self.blocks = find_blocks(model, config)

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """See `Pruner.for_run`; a pruner that needs the run overrides it."""
        return cls(model, config)

    def at_target(self) -> bool:
        """Return whether the number of kept weights is within `pruning.tolerance` of the target."""
        sparsity, wanted = self.sparsity(), 1 - self.config.sparsity
        return sparsity is not None and abs((1 - sparsity) - wanted) <= self.config.tolerance * wanted
