"""The pruner of supermask pruning: gates, their targets, and the minimum kept per layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from capprune.config.pruning import PruningConfig
from capprune.models.devices import precise
from capprune.pruning.costs import Costs, byte_costs, time_costs
from capprune.pruning.dynamics import Pull, pull_of
from capprune.pruning.layers import roles_of
from capprune.pruning.pruner import PrunedRun, TargetedPruner
from capprune.pruning.supermask import Supermask, ramp
from capprune_exporters.cost_table import read_cost_table
from capprune_runtime.errors import ConfigError

JUST_OPEN = 1e-3  # value of a gate that the minimum per layer keeps open


@dataclass(frozen=True)
class Goal:
    """One target of the sparsity loss.

    Attributes:
        sparsity: Share of the weights, or of their cost, to remove.
        pull: Lambda and the learning rate of the gates.
        costs: Cost of each weight; None to count weights.
    """

    sparsity: float
    pull: Pull
    costs: Costs | None


class SupermaskPruner(TargetedPruner):
    """Trains gates together with the weights; see `capprune.pruning.supermask`.

    Args:
        model: Model to which gates are added in place.
        config: The run's config.
        steps: T, total number of training steps.
        attended: Number of photo features that a step reads, for a limit in microseconds; by default the model's own.

    Raises:
        UnreachableTarget: If the run is too short, its pull too weak, or a limit out of reach.
        ConfigError: If the cost table does not exist.
    """

    def __init__(self, model: nn.Module, config: PruningConfig, *, steps: int, attended: int | None = None) -> None:
        super().__init__(model, config)
        self.supermask = Supermask(model, initial=config.initial_gate, modules=self.layers, widths=self.blocks.widths)
        self.gates = self.supermask.gates
        self._steps = steps
        first, *others = self._limits(model, getattr(model, "attended", 0) if attended is None else attended)
        goal = self._goal(config, *first)
        pull = goal.pull
        self.gate_learning_rate, self.gate_adam_eps = pull.gate_learning_rate, pull.gate_adam_eps
        shared = {"gate_learning_rate": self.gate_learning_rate, "gate_adam_eps": self.gate_adam_eps}
        own = config.model_copy(update=shared)
        self.goals = (goal, *(self._goal(own, *other) for other in others))
        self.ceiling = pull.ceiling

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """See `Pruner.for_run`."""
        return cls(model, config, steps=run.steps)

    def losses(self, step: int) -> list[tuple[float, Tensor]]:
        """Return lambda * a(t) and |target - sparsity| on hard masks, for every goal."""
        rise, done = ramp(step, self._steps), step / self._steps
        counts = self.supermask.counts()
        losses = [
            self.supermask.loss(one.sparsity, one.costs.weight if one.costs else None, counts) for one in self.goals
        ]
        return [(goal.pull.at(done) * rise, loss) for goal, loss in zip(self.goals, losses, strict=True)]

    @torch.no_grad()
    def after(self, step: int) -> None:
        """Clamp the gates to their ceiling. Reopen the highest gates of a layer that is below its minimum."""
        if math.isfinite(self.ceiling):
            for gate in self.gates.values():
                gate.clamp_(max=self.ceiling)
        if not self.config.least_kept:
            return
        for gate in self.gates.values():
            least = math.ceil(self.config.least_kept * gate.numel())
            if int((gate > 0).sum()) < least:
                highest = gate.flatten().topk(least).indices
                gate.view(-1)[highest] = gate.view(-1)[highest].clamp_min(JUST_OPEN)

    def sparsity(self) -> float:
        """Return the share of the prunable weights whose gate is closed."""
        return self.supermask.sparsity()

    def kept(self) -> Mapping[str, int]:
        """Return the number of weights behind open gates in each tensor."""
        return self.supermask.kept()

    def costs(self) -> dict[str, float]:
        """Return the current cost of the model in every limited unit."""
        kept = self.kept()
        return {goal.costs.unit: goal.costs.total(kept) for goal in self.goals if goal.costs}

    def at_target(self) -> bool:
        """Return whether every limit is met within `pruning.tolerance`."""
        return abs(max(map(self._excess, self.goals))) <= self.config.tolerance

    def _excess(self, goal: Goal) -> float:
        """Return the relative excess of kept weights or cost over a goal; negative below it."""
        if goal.costs is None:
            return (1 - self.supermask.sparsity()) / (1 - goal.sparsity) - 1
        most = goal.costs.total(self._sizes()) - goal.costs.fixed
        return (goal.costs.total(self.kept()) - goal.costs.fixed) / most / (1 - goal.sparsity) - 1

    @torch.no_grad()
    def reach_target(self) -> int:
        """Close the lowest open gates until every limit is met, or open the highest closed ones if too few are open."""
        if self.at_target():
            return 0
        hardest = max(self.goals, key=self._excess)
        moved = self._move(hardest) if self._excess(hardest) < 0 else 0
        for goal in self.goals:
            if self._excess(goal) > self.config.tolerance:
                moved += self._move(goal)
        return moved

    def _move(self, goal: Goal) -> int:
        """Open or close the gates nearest to 0 until their cost meets a goal. Returns the number of gates changed."""
        share = goal.costs.weight if goal.costs else dict.fromkeys(self.gates, 1.0)
        widths = self.blocks.widths
        values = torch.cat([gate.flatten() for gate in self.gates.values()])
        costs = torch.cat(
            [
                gate.new_full(
                    (gate.numel(),),
                    share[name] * widths.get(name.removesuffix(".weight"), 1),
                    dtype=precise(gate.device),
                )
                for name, gate in self.gates.items()
            ]
        )
        over = float(costs[values > 0].sum()) - (1 - goal.sparsity) * float(costs.sum())
        order = values.abs().argsort()
        order = order[((values > 0) == (over > 0))[order] & (costs[order] > 0)]
        count = int(torch.searchsorted(costs[order].cumsum(0), abs(over), right=over < 0)) + (over > 0)
        values[order[:count]] = -JUST_OPEN if over > 0 else JUST_OPEN
        parts = values.split_with_sizes([gate.numel() for gate in self.gates.values()])
        for gate, new in zip(self.gates.values(), parts, strict=True):
            gate.copy_(new.view_as(gate))
        return min(count, len(order))

    def _sizes(self) -> dict[str, int]:
        widths = {f"{name}.weight": width for name, width in self.blocks.widths.items()}
        return {name: gate.numel() * widths.get(name, 1) for name, gate in self.gates.items()}

    def _limits(self, model: nn.Module, attended: int) -> list[tuple[Costs | None, float]]:
        config, widths = self.config, self.blocks.widths
        found: list[tuple[Costs | None, float]] = []
        if config.bytes is not None:
            found.append((byte_costs(model, self.layers, widths), float(config.bytes)))
        if config.step_us is not None:
            table = read_cost_table(config.costs, "pruning.costs")
            costs = time_costs(model, self.layers, widths, table, attended, roles_of(model))
            if not any(costs.weight.values()):
                raise ConfigError("no layer of a step is pruned, so time cannot be the limit", where="pruning.step_us")
            found.append((costs, config.step_us))
        return found or [(None, config.sparsity)]

    def _goal(self, config: PruningConfig, costs: Costs | None, limit: float) -> Goal:
        sparsity = limit if costs is None else costs.sparsity(limit, self._sizes())
        own = config.model_copy(update={"sparsity": sparsity})
        return Goal(sparsity, pull_of(own, steps=self._steps, size=self.supermask.size), costs)
