"""One training step: from a batch to updated weights, in parts for several processes or for gradient accumulation.

Random numbers depend on the seed, the step and the part of the batch, not on earlier draws. So one process that
computes a batch in two parts gives the same result as two processes with one part each: the same masks, the same
dropout, the same sum of gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from capprune.config.run import RunConfig
from capprune.models.devices import compiled
from capprune.models.family import Decoder
from capprune.pruning.pruner import Pruner
from capprune.pruning.supermask import Gate, Supermask
from capprune.training.batches import Batch, parts_of
from capprune.training.encoder import InputTable, Sight
from capprune.training.objectives import Objective
from capprune.training.ranks import Ranks
from capprune_runtime.errors import CapPruneError

RATE = "rate"  # of a parameter group: ratio of its learning rate to the decoder's
MASKS, SAMPLES, LOSS = range(3)  # uses of random numbers in a step


class Stepper:
    """Performs the training steps of one run.

    Args:
        config: The run's config.
        folder: The run's folder, for messages.
        ranks: The processes.
        decoder: The decoder in training.
        sight: Computes features of photos.
        pruner: The pruner of the model.
        objective: The training objective.
        optimiser: Optimiser of weights and gates. Each group has a `RATE`, except that of the gates.
        photos: The model's input for the training photos.
        learning_rate: Returns the learning rate of the weights at a step.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        ranks: Ranks,
        decoder: Decoder,
        sight: Sight,
        pruner: Pruner,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        photos: InputTable,
        learning_rate: Callable[[int], float],
    ) -> None:
        self._settings, self._folder, self._ranks = config.training, folder, ranks
        self._sight, self._pruner, self._objective = sight, pruner, objective
        self._photos, self._learning_rate, self._plain = photos, learning_rate, optimiser
        self._module, self._optimiser = ranks.fabric.setup(decoder, optimiser)
        self._module.mark_forward_method("scores")
        self._forward: Any = self._module.scores
        if config.training.compile:
            self._forward = compiled(self._module.scores)
        self._gated = _gated(decoder)
        self._gated_encoder = [] if sight.encoder is None else _gated(sight.encoder)
        self._learning = [one for group in optimiser.param_groups for one in group["params"]]

    def take(self, step: int, batch: Batch) -> tuple[float, float]:
        """Train on one batch.

        Args:
            step: Number of the step, from 0.
            batch: The batch of all processes.

        Returns:
            The loss of the whole batch, and the sparsity loss of the gates.

        Raises:
            CapPruneError: The loss is not finite.
        """
        self._pruner.before(step)
        each, ranks = self._settings.accumulate, self._ranks
        parts = parts_of(batch, each * ranks.place.world)
        own = range(ranks.place.rank * each, (ranks.place.rank + 1) * each)
        ready = [(number, *self._prepared(step, number, part)) for number in own if (part := parts[number]) is not None]
        words = torch.tensor([float(sum(int((part.targets >= 0).sum()) for *_, part in ready))], dtype=torch.float64)
        words = words.to(ranks.device, torch.float32)
        ranks.add(words)
        self._optimiser.zero_grad(set_to_none=True)
        losses = torch.zeros(2, device=ranks.device)  # of captions, of sparsity
        for number, features, part in ready:
            losses += self._backward(step, number, features, part, float(words))
        self._add_up(losses)
        loss, sparsity_loss = losses.tolist()
        self._check(loss, step)
        self._update(step)
        self._pruner.after(step)
        return loss, sparsity_loss

    def _prepared(self, step: int, number: int, part: Batch) -> tuple[Tensor | None, Batch]:
        """Return a part's features and prepared batch; None for features that are computed again with a gradient."""
        again = self._sight.encoder is not None and self._settings.accumulate > 1
        with torch.set_grad_enabled(not again):
            features = self._seen(step, part)
        self._seed(step, number, SAMPLES)
        return None if again else features, self._objective.prepare(features.detach(), part)

    def _seen(self, step: int, part: Batch) -> Tensor:
        with Supermask.one_sample(), self._ranks.fabric.autocast():
            self._draw(step, self._gated_encoder)
            return self._sight(self._photos, part.photos)

    def _backward(self, step: int, number: int, features: Tensor | None, part: Batch, words: float) -> Tensor:
        """Add a part's gradient. Returns its share of the caption loss and of the sparsity loss."""
        features = self._seen(step, part) if features is None else features
        with Supermask.one_sample():
            with self._ranks.fabric.autocast():
                self._draw(step, self._gated)
            self._seed(step, number, LOSS)
            loss = self._objective.loss(self._scores, features, part)
        share = int((part.targets >= 0).sum()) / words
        loss = loss if share == 1 else loss * share
        found = torch.stack([loss.detach().float(), loss.new_zeros((), dtype=torch.float32)])
        if not math.isfinite(float(found[0])):
            return found
        for weight, pulled in self._pruner.losses(step) if number == 0 else ():
            found[1] += pulled.detach()
            loss = loss + weight * pulled
        self._ranks.fabric.backward(loss)
        return found

    def _scores(self, *inputs: Tensor) -> Tensor:
        # Fabric does so for a marked method only if a strategy wraps the module, and none does here.
        with self._ranks.fabric.autocast():
            scores: Tensor = self._forward(*inputs)
        return scores

    def _add_up(self, losses: Tensor) -> None:
        if self._ranks.place.world == 1:
            return
        for one in self._learning:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        self._ranks.add(losses, *(one.grad for one in self._learning))

    def _check(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise CapPruneError(
                f"the loss is not finite at step {step}",
                where=self._folder,
                found=loss,
                hint="lower training.learning_rate, and choose another --out",
            )

    def _update(self, step: int) -> None:
        rate, clip = self._learning_rate(step), self._settings.gradient_clip
        if self._ranks.scaler is not None:
            self._ranks.scaler.unscale_(self._plain)
        for group in self._plain.param_groups:
            if RATE in group:  # of weights; the gates are not clipped, and their rate is constant
                if clip:
                    torch.nn.utils.clip_grad_norm_(group["params"], clip)
                group["lr"] = group[RATE] * rate
        self._optimiser.step()

    def _draw(self, step: int, gated: list[nn.Module]) -> None:
        """Draw a step's masks, the same in every part and process; valid while `Supermask.one_sample` is open."""
        if gated:
            self._seed(step, 0, MASKS)
            for module in gated:
                _ = module.weight

    def _seed(self, step: int, part: int, what: int) -> None:
        torch.manual_seed(seed_of(self._settings.seed, step, part, what))


def make_optimiser(
    decoder: Decoder, sight: Sight, pruner: Pruner, config: RunConfig, labels: nn.Module | None = None
) -> torch.optim.Adam:
    """Return Adam for the weights, with separate groups and learning rates for the encoder and for the gates.

    Args:
        decoder: The decoder.
        sight: The encoder, of which the weights that learn are optimised.
        pruner: The pruner, whose gates are optimised.
        config: The run's config.
        labels: The classifier of objects, which learns like the decoder; None for none.
    """
    gates = list(pruner.gates.values())
    known = set(map(id, gates))
    weights = [parameter for parameter in decoder.parameters() if id(parameter) not in known]
    settings = config.training
    usual = {"eps": settings.adam_eps, "weight_decay": settings.weight_decay}
    groups: list[dict[str, Any]] = [{"params": weights, RATE: 1.0, **usual}]
    if seen := sight.freeze_untrained():
        groups.append({"params": seen, RATE: config.encoder.learning_rate / settings.learning_rate, **usual})
    if labels is not None:
        groups.append({"params": list(labels.parameters()), RATE: 1.0, **usual})
    if gates:
        groups.append({"params": gates, "lr": pruner.gate_learning_rate, "eps": pruner.gate_adam_eps})
    return torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)


def seed_of(seed: int, *places: int) -> int:
    """Return the seed of one place in a run, 0 to 2**63 - 1."""
    return int(np.random.SeedSequence([seed, *places]).generate_state(1, np.uint64)[0]) >> 1


def _gated(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose weight has a gate, in the order of the model."""
    return [
        module
        for module in model.modules()
        if parametrize.is_parametrized(module, "weight")
        and isinstance(module.get_submodule("parametrizations.weight.0"), Gate)
    ]
