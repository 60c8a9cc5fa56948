"""A run that ends beside its target is brought to it, by the gates that were nearest to going there."""

from __future__ import annotations

import pytest
import torch

from capprune.config.pruning import PruningConfig
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune.pruning.learned import SupermaskPruner

SHAPE = SoftAttentionConfig(embedding=16, hidden=32, attention=16, context=16)


def pruner_of(**settings: object) -> SupermaskPruner:
    """Gates spread around 0, about half of them open."""
    torch.manual_seed(0)
    config = PruningConfig.model_validate({"method": "supermask", **settings})
    pruner = SupermaskPruner(SoftAttention(SHAPE, features=24, vocabulary=50), config, steps=400, attended=256)
    with torch.no_grad():
        for gate in pruner.gates.values():
            gate.normal_()
    return pruner


def gates_of(pruner: SupermaskPruner) -> torch.Tensor:
    return torch.cat([gate.detach().flatten() for gate in pruner.gates.values()]).clone()


@pytest.mark.parametrize("sparsity", [0.9, 0.2], ids=["closes", "opens"])
def test_the_gates_nearest_to_0_bring_it_to_the_target_exactly(sparsity: float) -> None:
    pruner = pruner_of(sparsity=sparsity)
    before = gates_of(pruner)
    moved = pruner.reach_target()
    after = gates_of(pruner)
    changed = before != after
    size = pruner.supermask.size
    assert pruner.at_target() and abs((1 - pruner.sparsity()) * size - (1 - sparsity) * size) < 1
    assert moved == int(changed.sum()) > 0.2 * size
    assert bool((before[changed] > 0).all() if sparsity > 0.5 else (before[changed] < 0).all())
    rest = before[(before > 0) & ~changed] if sparsity > 0.5 else before[(before < 0) & ~changed]
    assert float(before[changed].abs().max()) <= float(rest.abs().min())


def test_a_model_at_its_target_is_left_alone() -> None:
    pruner = pruner_of(sparsity=0.5, tolerance=0.05)
    before = gates_of(pruner)
    assert pruner.at_target() and pruner.reach_target() == 0
    assert torch.equal(gates_of(pruner), before)


def test_blocks_count_all_their_weights() -> None:
    pruner = pruner_of(sparsity=0.9, block="1x16")
    pruner.reach_target()
    assert pruner.blocks.widths
    assert pruner.sparsity() == pytest.approx(0.9, abs=16 / pruner.supermask.size)


def test_a_limit_in_microseconds_closes_only_what_costs_time() -> None:
    pruner = pruner_of(step_us=16.0)  # of 13 that no weight takes and 23 with all of them
    with torch.no_grad():
        for gate in pruner.gates.values():
            gate.abs_()
    before = {name: gate.detach().clone() for name, gate in pruner.gates.items()}
    assert not pruner.at_target() and pruner.reach_target() > 0 and pruner.at_target()
    assert pruner.costs()["step_us"] == pytest.approx(16.0, abs=0.01)
    changed = {name for name, gate in pruner.gates.items() if not torch.equal(gate, before[name])}
    assert changed == {"query.weight", "rnn.weight", "output.weight"}


@pytest.mark.parametrize("opened", [True, False], ids=["closes", "opens"])
def test_of_two_limits_neither_is_passed_and_the_harder_one_is_used_up(opened: bool) -> None:
    pruner = pruner_of(step_us=16.0, bytes=12_000)
    with torch.no_grad():
        for gate in pruner.gates.values():
            gate.abs_().mul_(1 if opened else -1)
    assert not pruner.at_target() and pruner.reach_target() > 0 and pruner.at_target()
    shares = [pruner.costs()["step_us"] / 16.0, pruner.costs()["bytes"] / 12_000]
    assert max(shares) == pytest.approx(1, abs=0.02)
