"""The baselines: masks that follow from a rule, not from learning.

- *gradual*: Zhu and Gupta, "To prune, or not to prune" (2017): the smallest weights go little by little while it trains.
- *hard*: the smallest weights of a trained model go at once, and what is left is trained again.
- *lottery*: Frankle and Carbin (2019): the same masks, or those of a gradual run, with the kept weights back at their start.
- *snip*: Lee, Ajanthan, Torr (2019): the weights that matter least to the loss of one batch go before training, by the
  magnitude of weight times gradient. (The code published with the captioning papers ranks the signed product, which keeps
  weights for their sign; that column cannot be reproduced with this.)
- *keep*: the masks of the run that this one starts from, for fine-tuning.
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
    """Masks that multiply the weights.

    Args:
        model: Gets masks in place, all open.
        config: The run's config.
        layers: That are masked; those of the config if left out.
    """

    default_scope: Scope = "blind"

    def __init__(self, model: nn.Module, config: PruningConfig, layers: Collection[str] | None = None) -> None:
        super().__init__(model, config)
        self.masks = Masks(model, self.layers if layers is None else layers, self.blocks.widths)

    def remove_smallest(self, saliency: Mapping[str, Tensor], sparsity: float) -> None:
        """Set the masks to keep what is most salient."""
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
        """Saliencies of the trained weights as the scope compares them."""
        return magnitudes(self.masks.weights(), self.config.scope or self.default_scope)

    def sparsity(self) -> float:
        """Share of the prunable weights that are removed."""
        return self.masks.sparsity()

    def kept(self) -> Mapping[str, int]:
        """Weights that each tensor keeps."""
        return self.masks.kept()


class GradualPruner(MaskPruner):
    """s(t) = s_f (1 - (1 - (t - t0) / (tn - t0))³) between two steps of the run.

    Args:
        model: Gets masks in place.
        config: The run's config.
        steps: T, training steps in all.
        epoch: Steps of one epoch; the first passes untouched unless `gradual.begin` says otherwise.
    """

    default_scope: Scope = "uniform"

    def __init__(self, model: nn.Module, config: PruningConfig, *, steps: int, epoch: int) -> None:
        super().__init__(model, config)
        schedule = config.gradual
        end = round(schedule.end * steps)
        first = epoch if schedule.begin is None else round(schedule.begin * steps)
        self._first = min(first, end // 2)  # a run of two epochs has to begin within its first
        every = max(1, (end - self._first) // schedule.updates)
        self._last = self._first + every * ((end - self._first) // every)
        self._every = every

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """See `Pruner.for_run`."""
        return cls(model, config, steps=run.steps, epoch=run.epoch)

    def scheduled(self, step: int) -> float:
        """The sparsity that the schedule asks for at a step."""
        if step >= self._last:
            return self.config.sparsity
        done = max(0.0, (step - self._first) / (self._last - self._first))
        return self.config.sparsity * (1 - (1 - done) ** 3)

    def before(self, step: int) -> None:
        """Tighten the masks where the schedule has an update."""
        if self._first <= step <= self._last and (step - self._first) % self._every == 0:
            sparsity = self.scheduled(step)
            if sparsity > 0:
                self.remove_smallest(self.magnitudes(), sparsity)


class HardPruner(MaskPruner):
    """One shot by the magnitude of trained weights."""

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Prune the weights as they were loaded."""
        self.remove_smallest(self.magnitudes(), self.config.sparsity)


class LotteryPruner(MaskPruner):
    """The masks of a trained model over the weights of its start.

    Args:
        model: At the start of the run that it is compared with.
        config: The run's config.
        trained: That run's weights by name.
        masks: That run's masks; empty if it was dense, and then its magnitudes choose.
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
        """Take the masks over, or make them from the trained magnitudes."""
        if self._masks:
            self.masks.set(self._masks)
            return
        trained = {name: self._trained[name] for name in self.masks.kept()}
        self.remove_smallest(magnitudes(trained, self.config.scope or self.default_scope), self.config.sparsity)


class SnipPruner(MaskPruner):
    """Connection sensitivity before the first step."""

    needs_loss = True

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Keep the weights with the largest |weight * gradient| over one batch."""
        assert loss is not None
        weights = self.masks.weights()
        fixed = [weight for weight in weights.values() if not weight.requires_grad]
        for weight in fixed:  # of an encoder of which only masks are chosen
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
    """The masks of another run, as they are.

    Args:
        model: Gets masks in place.
        config: The run's config; its sparsity is not used.
        masks: Masks of the run that this one starts from, by weight name.
    """

    def __init__(self, model: nn.Module, config: PruningConfig, *, masks: Mapping[str, Tensor]) -> None:
        super().__init__(model, config, [name.removesuffix(".weight") for name in masks])
        self._masks = masks

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """See `Pruner.for_run`; masks of parts that the model does not have are left out."""
        here = dict(model.named_modules())
        own = {name: mask for name, mask in run.masks.items() if name.removesuffix(".weight") in here}
        return cls(model, config, masks=own)

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Take the masks over."""
        self.masks.set(self._masks)

    def at_target(self) -> bool:
        """Always: fine-tuning removes nothing."""
        return True
