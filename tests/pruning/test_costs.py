from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from capprune.config.pruning import PruningConfig
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune.pruning.costs import Costs, byte_costs, time_costs
from capprune.pruning.layers import prunable_layers
from capprune.pruning.learned import SupermaskPruner
from capprune.pruning.supermask import Supermask
from capprune_exporters.cost_table import read_cost_table
from capprune_exporters.tflite.single import WEIGHT, single_product
from capprune_exporters.tflite.sparse import make_sparse
from capprune_runtime.errors import ConfigError, UnreachableTarget

TABLE = {
    "schema_version": 1,
    "machine": "made up",
    "runtime": "none",
    "fixed_us": 10.0,
    "attended_ns": 0.5,
    "products": {
        "csr_float32": {"row_ns": 0.0, "kept_ns": 2.0},
        "block_1x16_int8": {"row_ns": 1.0, "kept_ns": 0.1},
    },
}


def decoder() -> SoftAttention:
    shape = SoftAttentionConfig(embedding=32, hidden=32, attention=32, context=32)
    return SoftAttention(shape, features=48, vocabulary=400)


def supermask(model: nn.Module) -> Supermask:
    torch.manual_seed(4)
    found = Supermask(model)
    for gate in found.gates.values():
        nn.init.normal_(gate)
    return found


def gradients(found: Supermask, costs: dict[str, float] | None) -> dict[str, torch.Tensor]:
    loss = found.loss(0.9, costs)
    return dict(zip(found.gates, torch.autograd.grad(loss, list(found.gates.values())), strict=True))


@pytest.mark.parametrize("cost", [1.0, 0.37, 6.0, 1e-7])
def test_equal_costs_are_the_papers_loss_to_the_bit(cost: float) -> None:
    found = supermask(decoder())
    costs = dict.fromkeys(found.gates, cost)
    assert torch.equal(found.loss(0.9), found.loss(0.9, costs))
    plain, costly = gradients(found, None), gradients(found, costs)
    assert all(torch.equal(plain[name], costly[name]) for name in plain)


def test_a_layer_is_pulled_as_hard_as_its_weights_cost() -> None:
    found = supermask(decoder())
    costs = {name: 3.0 if name == "output.weight" else 1.0 for name in found.gates} | {"embedding.weight": 0.0}
    plain, costly = gradients(found, None), gradients(found, costs)
    ratios = {name: (costly[name] / plain[name]).mean().item() for name in plain}
    assert ratios["embedding.weight"] == 0
    assert ratios["output.weight"] == pytest.approx(3 * ratios["rnn.weight"])
    shares = found.shares(costs)
    sizes = {name: gate.numel() for name, gate in found.gates.items()}
    assert sum(shares[name] * size for name, size in sizes.items()) == pytest.approx(found.size)


def test_bytes_are_those_of_the_sparse_forms() -> None:
    model = decoder()
    layers = prunable_layers(model, PruningConfig())
    costs = byte_costs(model, layers, {"rnn": 16})
    assert costs.weight["output.weight"] == 4 + 1  # 32 columns: an index of one byte
    assert costs.weight["rnn.weight"] == 1 + 1 / 16
    kept = dict.fromkeys(costs.weight, 10)
    assert costs.total(kept) == costs.fixed + 10 * sum(costs.weight.values())


@pytest.mark.parametrize(("form", "width"), [("csr_float32", 1), ("block_1x16_int8", 16)])
@pytest.mark.parametrize("columns", [128, 512])
def test_predicted_bytes_are_those_that_the_exporter_writes(form: str, width: int, columns: int) -> None:
    random = np.random.default_rng(3)
    kept = np.repeat(random.random((384, columns // width)) < 0.1, width, axis=1)
    matrix = np.where(kept, random.standard_normal((384, columns)), 0).astype(np.float32)
    weights = "int8" if width > 1 else "float32"
    made = make_sparse(
        single_product(matrix), one_row=True, plan={WEIGHT: form}, weights=weights, names={WEIGHT: matrix}
    )
    (stored,) = made.tensors
    assert stored.form == form
    costs = byte_costs(nn.ModuleDict({"layer": nn.Linear(columns, 384)}), ("layer",), {"layer": width})
    assert costs.total({"layer.weight": int(kept.sum())}) == pytest.approx(stored.size_bytes, rel=0.05)


def test_time_is_spent_in_the_matrices_of_a_step(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(TABLE), encoding="utf-8")
    model = decoder()
    layers = prunable_layers(model, PruningConfig())
    table = read_cost_table(str(path), "pruning.costs")
    costs = time_costs(model, layers, {"rnn": 16}, table, attended=1000, roles=model.roles())
    assert {name for name, cost in costs.weight.items() if cost} == {"rnn.weight", "query.weight", "output.weight"}
    assert costs.fixed == pytest.approx(10 + 0.5 + 128 / 1000)  # no rows in CSR, 4 · 32 in blocks
    assert costs.weight["output.weight"] == pytest.approx(0.002)
    assert costs.weight["rnn.weight"] == pytest.approx(0.0001)


def test_a_limit_becomes_the_share_that_goes() -> None:
    costs = Costs("bytes", {"a": 2.0, "b": 0.0}, fixed=100)
    sizes = {"a": 1000, "b": 1000}
    assert costs.sparsity(600, sizes) == pytest.approx(0.75)
    for limit in (100, 50, 2100, 5000):
        with pytest.raises(UnreachableTarget, match=r"pruning\.bytes"):
            costs.sparsity(limit, sizes)


def test_the_shipped_table_tells_the_measured_order() -> None:
    table = read_cost_table("x86-64", "pruning.costs")
    assert 3 < table.products["csr_float32"].kept_ns / table.products["block_1x16_int8"].kept_ns < 100


def test_broken_and_missing_tables_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="x86-64"):
        read_cost_table("no-such-machine", "pruning.costs")
    path = tmp_path / "table.json"
    for broken in ("[", json.dumps({**TABLE, "schema_version": 9}), json.dumps({**TABLE, "products": {}}), "[]"):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(ConfigError, match="broken"):
            read_cost_table(str(path), "pruning.costs")


def test_goals_of_bytes_and_time_stand_side_by_side() -> None:
    config = PruningConfig(method="supermask", bytes=20_000, step_us=30.0)
    pruner = SupermaskPruner(decoder(), config, steps=600, attended=1000)
    assert [goal.costs.unit for goal in pruner.goals if goal.costs] == ["bytes", "step_us"]
    assert set(pruner.costs()) == {"bytes", "step_us"}
    assert not pruner.at_target()
    assert len(pruner.losses(300)) == 2
