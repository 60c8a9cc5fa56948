"""Baseline pruning methods, whose masks follow from a rule and are not learned.

- *gradual*: Zhu and Gupta, "To prune, or not to prune" (2017): removes the smallest weights step by step during training.
- *hard*: removes the smallest weights of a trained model at once, and trains the others again.
- *lottery*: Frankle and Carbin (2019): uses the same masks, or those of a gradual run, with the kept weights reset to
  their initial values.
- *snip*: Lee, Ajanthan, Torr (2019): before training, removes the weights with the least effect on the loss of one batch,
  measured as the magnitude of weight times gradient. (The code published with the captioning papers ranks the signed
  product, so its results cannot be reproduced with this method.)
- *keep*: uses the masks of the run that this one starts from, for fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from capprune.config.pruning import PruningConfig, Scope
from capprune.pruning.criteria import in_blocks, keep_largest, magnitudes
from capprune.pruning.masks import Masks
from capprune.pruning.pruner import PrunedRun, TargetedPruner


class MaskPruner(TargetedPruner):
    """Base class of the methods with fixed masks.

    Args:
        model: Model to which open masks are added in place.
        config: The run's config.
        layers: Layers to mask; by default those of the config.
    """

    default_scope: Scope = "blind"

    def __init__(self, model: nn.Module, config: PruningConfig, layers: Collection[str] | None = None) -> None:
        super().__init__(model, config)
        self.masks = Masks(model, self.layers if layers is None else layers, self.blocks.widths)

    def remove_smallest(self, saliency: Mapping[str, Tensor], sparsity: float) -> None:
        """Set the masks to keep the most salient weights."""
        scope = self.config.scope or self.default_scope
        kept = keep_largest(
            in_blocks(saliency, self.masks.widths),
            sparsity,
            pooled=scope != "uniform",
            least_kept=self.config.least_kept,
            widths=self.masks.widths,
        )
        self.masks.set(kept)

    def magnitudes(self) -> dict[str, Tensor]:
        """Return the saliencies of the trained weights for the configured scope."""
        return magnitudes(self.masks.weights(), self.config.scope or self.default_scope)

    def sparsity(self) -> float:
        """Return the share of the prunable weights that are removed."""
        return self.masks.sparsity()

    def kept(self) -> Mapping[str, int]:
        """Return the number of weights that each tensor keeps."""
        return self.masks.kept()


class GradualPruner(MaskPruner):
    """Gradual pruning: s(t) = s_f (1 - (1 - (t - t0) / (tn - t0))³) between the steps t0 and tn.

    Args:
        model: Model to which masks are added in place.
        config: The run's config.
        steps: T, total number of training steps.
        epoch: Steps per epoch. Pruning begins after the first epoch unless `gradual.begin` is set.
    """

    default_scope: Scope = "uniform"

    def __init__(self, model: nn.Module, config: PruningConfig, *, steps: int, epoch: int) -> None:
        super().__init__(model, config)
        schedule = config.gradual
        end = round(schedule.end * steps)
        first = epoch if schedule.begin is None else round(schedule.begin * steps)
        self._first = min(first, end // 2)  # a run of two epochs must begin within the first
        every = max(1, (end - self._first) // schedule.updates)
        self._last = self._first + every * ((end - self._first) // every)
        self._every = every

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """See `Pruner.for_run`."""
        return cls(model, config, steps=run.steps, epoch=run.epoch)

    def scheduled(self, step: int) -> float:
        """Return the scheduled sparsity at a step."""
        if step >= self._last:
            return self.config.sparsity
        done = max(0.0, (step - self._first) / (self._last - self._first))
        return self.config.sparsity * (1 - (1 - done) ** 3)

    def before(self, step: int) -> None:
        """Update the masks at the steps of the schedule."""
        if self._first <= step <= self._last and (step - self._first) % self._every == 0:
            sparsity = self.scheduled(step)
            if sparsity > 0:
                self.remove_smallest(self.magnitudes(), sparsity)


class HardPruner(MaskPruner):
    """One-shot pruning by the magnitude of trained weights."""

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Prune the loaded weights."""
        self.remove_smallest(self.magnitudes(), self.config.sparsity)


class LotteryPruner(MaskPruner):
    """Lottery ticket: the masks of a trained model on its initial weights.

    Args:
        model: Model with the initial weights of the trained run.
        config: The run's config.
        trained: Weights of the trained run, by name.
        masks: Masks of the trained run. Empty if it was dense; its magnitudes then choose the masks.
    """

    def __init__(
        self, model: nn.Module, config: PruningConfig, *, trained: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> None:
        super().__init__(model, config)
        self._trained, self._masks = trained, masks

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """See `Pruner.for_run`."""
        return cls(model, config, trained=run.weights, masks=run.masks)

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Set the masks of the trained run, or compute them from its magnitudes."""
        if self._masks:
            self.masks.set(self._masks)
            return
        trained = {name: self._trained[name] for name in self.masks.kept()}
        self.remove_smallest(magnitudes(trained, self.config.scope or self.default_scope), self.config.sparsity)


class SnipPruner(MaskPruner):
    """SNIP: connection sensitivity before the first step."""

    needs_loss = True

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Keep the weights with the largest |weight * gradient| over one batch."""
        assert loss is not None
        weights = self.masks.weights()
        fixed = [weight for weight in weights.values() if not weight.requires_grad]
        for weight in fixed:  # of an encoder that is masked but not trained
            weight.requires_grad_(True)
        gradients = torch.autograd.grad(loss(), list(weights.values()))
        for weight in fixed:
            weight.requires_grad_(False)
        self.remove_smallest(
            {
                name: (weight * gradient).detach().abs()
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            },
            self.config.sparsity,
        )


class KeptMasks(MaskPruner):
    """Fixed masks of another run, for fine-tuning.

    Args:
        model: Model to which masks are added in place.
        config: The run's config; its sparsity is not used.
        masks: Masks of the run that this one starts from, by weight name.
    """

    def __init__(self, model: nn.Module, config: PruningConfig, *, masks: Mapping[str, Tensor]) -> None:
        super().__init__(model, config, [name.removesuffix(".weight") for name in masks])
        self._masks = masks

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """See `Pruner.for_run`. Ignores masks of modules that the model does not have."""
        here = dict(model.named_modules())
        own = {name: mask for name, mask in run.masks.items() if name.removesuffix(".weight") in here}
        return cls(model, config, masks=own)

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Set the masks of the other run."""
        self.masks.set(self._masks)

    def at_target(self) -> bool:
        """Return True: fine-tuning removes nothing."""
        return True
