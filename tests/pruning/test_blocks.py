from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from capprune.config.pruning import PruningConfig
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune.pruning.blocks import Blocks, find_blocks
from capprune.pruning.dynamics import crossing
from capprune.pruning.state import load_plain_state, plain_state
from capprune.pruning.supermask import Supermask, hard_mask, ramp
from capprune_runtime.errors import ConfigError

WIDTH = 16


def gated(gate: Tensor, weight: Tensor) -> tuple[nn.Linear, Supermask]:
    """A layer of `weight` `(N, K)` whose gates `(N, K / 16)` stand for blocks."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    mask = Supermask(layer, widths={"": WIDTH})
    with torch.no_grad():
        mask.gates[".weight"].copy_(gate)
        layer.get_parameter("parametrizations.weight.original").copy_(weight)
    return layer, mask


def in_blocks(matrix: Tensor) -> Tensor:
    return matrix.reshape(len(matrix), -1, WIDTH)


def decoder(cell: Literal["lstm", "gru"] = "lstm", **changed: int) -> SoftAttention:
    sizes = {"embedding": 16, "hidden": 32, "attention": 24, "context": 16, **changed}
    return SoftAttention(SoftAttentionConfig(cell=cell, **sizes), features=7, vocabulary=9)


def pruning(block: str = "1x16", **blocks: str) -> PruningConfig:
    return PruningConfig.model_validate({"method": "supermask", "block": block, "blocks": blocks})


@pytest.mark.parametrize("transposed", [False, True])
def test_gradient_of_a_block_gate_is_the_mean_over_its_weights(transposed: bool) -> None:
    torch.manual_seed(0)
    weight, gate = torch.randn(50, 64), torch.randn(50, 4) * 3
    upstream = torch.randn(64, 50).t() if transposed else torch.randn(50, 64)
    layer, mask = gated(gate, weight)
    masked = layer.train().weight
    kept = (masked != 0).float()
    torch.testing.assert_close(masked.detach(), weight * kept, rtol=0, atol=0)
    masked.backward(upstream)  # type: ignore[no-untyped-call]
    s = torch.sigmoid(gate)
    original = layer.get_parameter("parametrizations.weight.original")
    torch.testing.assert_close(original.grad, upstream * kept, rtol=0, atol=0)
    expected = in_blocks(upstream * weight).mean(-1) * s * (1 - s)
    torch.testing.assert_close(mask.gates[".weight"].grad, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("target", "sign"), [(0.9, 1.0), (0.1, -1.0)])
def test_sparsity_loss_pulls_at_a_block_gate_as_at_a_single_one(target: float, sign: float) -> None:
    model = nn.Sequential(nn.Linear(32, 10), nn.Linear(20, 16))
    mask = Supermask(model, widths={"0": WIDTH})
    with torch.no_grad():
        for gate in mask.gates.values():
            gate.copy_(torch.linspace(-6, 6, gate.numel()).view_as(gate))  # half are closed
    mask.loss(target).backward()  # type: ignore[no-untyped-call]
    assert mask.size == 640
    for gate in mask.gates.values():
        s = torch.sigmoid(gate.detach())
        torch.testing.assert_close(gate.grad, sign * s * (1 - s) / 640)


def test_sparsity_counts_weights_behind_blocks() -> None:
    mask = Supermask(nn.Sequential(nn.Linear(32, 10), nn.Embedding(10, 3)), widths={"0": WIDTH})
    with torch.no_grad():
        mask.gates["0.weight"][:3] = -0.001  # 6 blocks
        mask.gates["1.weight"][0, 0] = -9
    assert mask.gates["0.weight"].shape == (10, 2)
    assert mask.size == 350
    assert mask.kept() == {"0.weight": 320 - 96, "1.weight": 29}
    assert mask.sparsity() == pytest.approx(97 / 350)
    assert float(mask.loss(0.5).detach()) == pytest.approx(0.5 - 97 / 350)


@pytest.mark.parametrize("gate", [-3.0, 0.0, 1.0])
def test_sample_keeps_or_removes_whole_blocks_with_the_probability_of_their_gate(gate: float) -> None:
    torch.manual_seed(0)
    layer, _ = gated(torch.full((400, 100), gate), torch.ones(400, 1600))
    first, second = (in_blocks(layer.train().weight.detach()) for _ in range(2))
    assert set(first.sum(-1).flatten().tolist()) == {0.0, 16.0}
    expected = 1 / (1 + math.exp(-gate))
    deviation = math.sqrt(expected * (1 - expected) / 40_000)
    assert float(first.mean()) == pytest.approx(expected, abs=4 * deviation)
    assert bool((first != second).any())


def test_evaluation_keeps_whole_blocks_whose_gate_is_above_zero() -> None:
    layer, mask = gated(torch.tensor([[-1.0, 1e-30], [0.0, 3.0]]), torch.full((2, 32), 0.5))
    weight = in_blocks(layer.eval().weight)
    assert weight.mean(-1).tolist() == [[0, 0.5], [0, 0.5]]
    assert torch.equal(weight.amin(-1), weight.amax(-1))
    assert mask.kept() == {".weight": 32}


@pytest.mark.parametrize("steps", [150, 800])
@pytest.mark.parametrize("kappa", [1_700, 9_000])
def test_single_and_block_gates_of_one_model_cross_together_when_predicted(steps: int, kappa: float) -> None:
    model = nn.Sequential(nn.Linear(64, 100, bias=False), nn.Linear(100, 64, bias=False))
    mask = Supermask(model, widths={"0": WIDTH})
    weight = kappa * mask.size / (1e4 * steps)
    optimiser = torch.optim.Adam(mask.gates.values(), lr=100.0, eps=1e-2, fused=True)
    crossed: dict[str, float] = {}
    for step in range(steps):
        loss = weight * ramp(step, steps) * mask.loss(0.975)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        for name, kept in mask.kept().items():
            if kept < 3200:
                crossed.setdefault(name, (step + 1) / steps)
    assert set(crossed) == {"0.weight", "1.weight"}
    for fraction in crossed.values():
        assert fraction == pytest.approx(crossing(kappa, steps), rel=0.1)


def test_settled_blocks_and_single_weights_are_worth_the_same() -> None:
    """Weights of equal value, half of them in blocks: what is kept must not favour either kind."""
    torch.manual_seed(0)
    steps, size = 600, 3200
    model = nn.ModuleList([nn.Linear(160, 10, bias=False), nn.Linear(160, 10, bias=False)])
    mask = Supermask(model, widths={"0": WIDTH})
    value = torch.rand(10, 10)  # of a weight; constant in each block
    values = value.repeat_interleave(WIDTH, 1)
    with torch.no_grad():
        for layer in model:
            layer.get_parameter("parametrizations.weight.original").fill_(1.0)
    optimiser = torch.optim.Adam(mask.gates.values(), lr=100.0, eps=1e-2, fused=True)
    for step in range(steps):
        gain = sum(((values * layer.weight).sum() for layer in model), torch.zeros(()))
        loss = 10 * ramp(step, steps) * mask.loss(0.5) - gain / size
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert mask.sparsity() == pytest.approx(0.5, abs=0.01)
    blocks, single = mask.kept().values()
    assert blocks == pytest.approx(single, rel=0.1)
    best = values[values > values.median()].mean()
    for gate in mask.gates.values():
        assert float(values[hard_mask(gate, values, 160 // gate.shape[1])].mean()) > 0.9 * best


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("lstm", {"rnn", "query", "output"}), ("gru", {"rnn", "candidate", "query", "output"})],
)
def test_matrices_of_a_step_get_blocks_and_the_others_stay_single(
    cell: Literal["lstm", "gru"], expected: set[str]
) -> None:
    model = decoder(cell)
    blocks = find_blocks(model, pruning())
    assert blocks == Blocks(dict.fromkeys(expected, WIDTH), {})
    shapes = {name: p.shape for name, p in model.named_parameters()}
    for name, gate in Supermask(model, widths=blocks.widths).gates.items():
        rows, columns = shapes[name]
        assert gate.shape == (rows, columns // (WIDTH if name.removesuffix(".weight") in expected else 1))


def test_no_blocks_unless_asked_for() -> None:
    assert find_blocks(decoder(), PruningConfig(method="supermask")) == Blocks({}, {})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (pruning(output="none"), {"rnn", "query"}),
        (pruning(output="none", rnn="1x16"), {"rnn", "query"}),
        (pruning("none", rnn="1x16"), {"rnn"}),
    ],
)
def test_override_of_a_layer_wins(config: PruningConfig, expected: set[str]) -> None:
    assert set(find_blocks(decoder(), config).widths) == expected


def test_rows_that_blocks_do_not_fill_stay_single_with_the_reason() -> None:
    blocks = find_blocks(decoder(hidden=40), pruning())  # rows of 16 + 16 + 40 weights
    assert blocks.widths == {}
    assert blocks.left_single["rnn"] == "its rows of 72 weights are not a multiple of 16"
    assert set(blocks.left_single) == {"rnn", "query", "output"}
    assert set(find_blocks(decoder(hidden=40), pruning(query="none", output="none")).left_single) == {"rnn"}


def test_blocks_for_a_layer_that_this_decoder_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)pruning\.blocks\.candidate.*rnn, query, output"):
        find_blocks(decoder("lstm"), pruning(candidate="1x16"))


def test_plain_names_lead_back_into_a_model_with_blocks_and_into_no_other() -> None:
    def pruned(widths: Mapping[str, int]) -> nn.Module:
        model = nn.Sequential(nn.Linear(32, 2))
        mask = Supermask(model, widths=widths)
        with torch.no_grad():
            for gate in mask.gates.values():
                gate.normal_()
        return model

    torch.manual_seed(0)
    model, other = (pruned({"0": WIDTH}) for _ in range(2))
    state = plain_state(model)
    assert state["0.weight.gate"].shape == (2, 2)
    load_plain_state(other, state)
    assert torch.equal(other.eval()(torch.ones(32)), model.eval()(torch.ones(32)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_plain_state(pruned({}), state)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 3), (2, 1), (2, 0), (2, 32), (2, 2, 1), ()])
def test_gates_that_do_not_fit_their_weight_are_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        hard_mask(torch.ones(shape), torch.ones(2, 32), WIDTH)
