"""One interface for every way to remove weights; a dense run is the one that removes none.

The training loop asks a pruner the same few things whatever the method: what to do before the first step, before and
after each one, what to add to the loss, which parameters learn at a rate of their own, and how sparse the model is.
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
    """What a pruner may need to know of its run.

    Attributes:
        steps: T, training steps in all.
        epoch: Steps of one epoch.
        weights: The trained weights of the run that it starts from, by name; empty where there is none.
        masks: Booleans for every pruned weight of that run; empty if it was dense.
    """

    steps: int
    epoch: int
    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]


class Pruner:
    """Removes nothing: a dense run.

    Attributes:
        blocks: Which layers go in blocks.
        gates: What is learned beside the weights, by the name of its weight.
        gate_learning_rate: Constant learning rate of the gates (Adam).
        gate_adam_eps: Epsilon of the gates' Adam.
        needs_loss: Whether `begin` needs the caption loss of a batch.
    """

    needs_loss = False

    def __init__(self) -> None:
        self.blocks = Blocks()
        self.gates: Mapping[str, Tensor] = {}
        self.gate_learning_rate, self.gate_adam_eps = 0.0, 0.0

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """Return the pruner of a run, with its gates or masks on the model.

        Args:
            model: Decoder, and encoder if it learns, with the weights that the run starts from.
            config: The keys under `pruning`.
            run: Its length, and the run that it starts from.

        Raises:
            UnreachableTarget: It could never reach its target.
            ConfigError: The config names layers that the model does not have.
        """
        return cls()

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Choose what can be chosen before the first step.

        Args:
            loss: The caption loss of one batch at the model as it is, if `needs_loss`.
        """

    def before(self, step: int) -> None:
        """Change the masks as the schedule says before a step, counted from 0."""

    def losses(self, step: int) -> list[tuple[float, Tensor]]:
        """What is added to the caption loss in a step: weights and what they multiply."""
        return []

    def after(self, step: int) -> None:
        """Mend what the optimiser's step may have broken."""

    def sparsity(self) -> float | None:
        """Share of the prunable weights that are removed; None for a dense run."""
        return None

    def kept(self) -> Mapping[str, int]:
        """Weights that each pruned tensor keeps."""
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
        """Within `pruning.tolerance` of the weights that should be left."""
        sparsity, wanted = self.sparsity(), 1 - self.config.sparsity
        return sparsity is not None and abs((1 - sparsity) - wanted) <= self.config.tolerance * wanted
