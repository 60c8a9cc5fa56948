"""No gate rises so far that the end of the run comes before it is down again."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from capprune.config.pruning import PruningConfig
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune.pruning.dynamics import FALL, highest, pull_of
from capprune.pruning.learned import SupermaskPruner
from capprune.pruning.supermask import Supermask

PRICED = PruningConfig(method="supermask")


@pytest.mark.parametrize("gate", [0.5, 2.0, 5.0, 9.0])
def test_a_pull_leads_to_0_from_where_its_integral_says(gate: float) -> None:
    assert highest(2 * gate + 2 * math.sinh(gate)) == pytest.approx(gate, rel=1e-6)


@pytest.mark.parametrize("sparsity", [0.8, 0.95, 0.975])
@pytest.mark.parametrize("steps", [800, 3000])
def test_gates_at_the_ceiling_come_down_in_a_fifth_of_the_run(sparsity: float, steps: int) -> None:
    layer = nn.Linear(50, 1, bias=False)
    pull = pull_of(PRICED.model_copy(update={"sparsity": sparsity}), steps=steps, size=50)
    mask = Supermask(layer, initial=pull.ceiling)
    rate, eps = pull.gate_learning_rate, pull.gate_adam_eps
    optimiser = torch.optim.Adam(mask.gates.values(), lr=rate, eps=eps, fused=True)
    taken = 0
    while mask.sparsity() < 0.5 and taken < steps:
        optimiser.zero_grad()
        (pull.at(1) * mask.loss(0.999)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        taken += 1
    assert 0 <= taken - FALL * steps <= 45  # that late by momentum


def test_whatever_pushes_gates_up_they_stop_at_the_ceiling() -> None:
    torch.manual_seed(0)
    model = SoftAttention(
        SoftAttentionConfig(embedding=16, hidden=32, attention=16, context=16), features=24, vocabulary=50
    )
    pruner = SupermaskPruner(model, PRICED, steps=400)
    with torch.no_grad():
        for gate in pruner.gates.values():
            gate.normal_(8, 4)
    before = {name: gate.detach().clone() for name, gate in pruner.gates.items()}
    pruner.after(0)
    assert 7 < pruner.ceiling < 9
    for name, gate in pruner.gates.items():
        assert torch.equal(gate, before[name].clamp_max(pruner.ceiling))


@pytest.mark.parametrize("published", [{"gate_learning_rate": 100.0}, {"sparsity_weight": 20.0}])
def test_published_recipes_have_no_ceiling(published: dict[str, float]) -> None:
    assert pull_of(PRICED.model_copy(update=published), steps=6000, size=5_000_000).ceiling == math.inf


def test_gates_may_start_above_where_the_ceiling_would_be() -> None:
    config = PRICED.model_copy(update={"initial_gate": 8.5, "kappa": 17_000.0, "sparsity": 0.5})
    pull = pull_of(config, steps=6000, size=5_000_000)
    assert highest(FALL * config.kappa) < pull.ceiling == 8.5
