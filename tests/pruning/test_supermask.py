from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig
from capprune.pruning.state import load_plain_state, plain_state
from capprune.pruning.supermask import Gate, Supermask, ramp


def original(layer: nn.Linear) -> nn.Parameter:
    """The weights as they are learned, before the mask."""
    return layer.get_parameter("parametrizations.weight.original")


def gated_linear(gate: Tensor, weight: Tensor | None = None) -> tuple[nn.Linear, Supermask]:
    layer = nn.Linear(gate.shape[1], gate.shape[0])
    mask = Supermask(layer)
    with torch.no_grad():
        mask.gates[".weight"].copy_(gate)
        if weight is not None:
            original(layer).copy_(weight)
    return layer, mask


def sampled(layer: nn.Linear) -> Tensor:
    """The weights of one forward pass in training."""
    return layer.train().weight.detach()


def test_gradients_pass_straight_through_to_the_probability() -> None:
    torch.manual_seed(0)
    weight, gate, upstream = torch.randn(50, 40), torch.randn(50, 40) * 3, torch.randn(50, 40)
    layer, mask = gated_linear(gate, weight)
    masked = layer.train().weight
    kept = (masked != 0).float()
    assert 0.2 < float(kept.mean()) < 0.8
    torch.testing.assert_close(masked.detach(), weight * kept, rtol=0, atol=0)
    masked.backward(upstream)  # type: ignore[no-untyped-call]
    s = torch.sigmoid(gate)
    torch.testing.assert_close(original(layer).grad, upstream * kept, rtol=0, atol=0)
    torch.testing.assert_close(mask.gates[".weight"].grad, upstream * weight * s * (1 - s), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("target", "sign"), [(0.9, 1.0), (0.1, -1.0)])
def test_sparsity_gradient_of_a_gate_is_its_share_and_flips_when_overshot(target: float, sign: float) -> None:
    weight_of_loss, step, steps = 20.0, 30, 100
    gate = torch.linspace(-6, 6, 60).view(10, 6)  # half are closed
    _, mask = gated_linear(gate)
    (weight_of_loss * ramp(step, steps) * mask.loss(target)).backward()  # type: ignore[no-untyped-call]
    s = torch.sigmoid(gate)
    expected = sign * weight_of_loss * ramp(step, steps) * s * (1 - s) / 60
    torch.testing.assert_close(mask.gates[".weight"].grad, expected)


def test_sparsity_loss_is_one_number_over_all_layers_on_hard_masks() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Embedding(10, 3))
    mask = Supermask(model)
    with torch.no_grad():
        mask.gates["0.weight"][:3] = -0.001  # 12 of 20 weights, however little below zero
        mask.gates["1.weight"][0, 0] = -9  # 1 of 30
    assert mask.size == 50
    assert mask.kept() == {"0.weight": 8, "1.weight": 29}
    assert mask.sparsity() == pytest.approx(13 / 50)
    assert float(mask.loss(0.5).detach()) == pytest.approx(0.5 - 13 / 50)
    assert float(mask.loss(0.2).detach()) == pytest.approx(13 / 50 - 0.2)


def test_sparsity_of_more_weights_than_float32_can_count_is_exact() -> None:
    layer = nn.Linear(4096, 4097, bias=False)  # 2 ** 24 + 4096 weights
    mask = Supermask(layer)
    with torch.no_grad():
        mask.gates[".weight"][0, 0] = -1
    assert float(mask.loss(0.0).detach()) == pytest.approx(1 / mask.size, rel=1e-6)


def test_evaluation_keeps_gates_above_zero_and_zero_itself_is_closed() -> None:
    gate = torch.tensor([[-1.0, -1e-30, 0.0], [1e-30, 1e-7, 3.0]])
    layer, mask = gated_linear(gate, torch.full((2, 3), 0.5))
    assert layer.eval().weight.tolist() == [[0, 0, 0], [0.5, 0.5, 0.5]]
    assert mask.kept() == {".weight": 3}
    assert mask.sparsity() == 0.5


@pytest.mark.parametrize("gate", [-3.0, -0.5, 0.0, 1.0, 5.0])
def test_share_of_weights_that_a_sample_keeps_is_the_sigmoid_of_the_gate(gate: float) -> None:
    torch.manual_seed(0)
    layer, _ = gated_linear(torch.full((400, 500), gate), torch.ones(400, 500))
    expected = 1 / (1 + math.exp(-gate))
    deviation = math.sqrt(expected * (1 - expected) / 200_000)
    assert float(sampled(layer).mean()) == pytest.approx(expected, abs=4 * deviation)


def test_every_draw_is_a_fresh_one() -> None:
    torch.manual_seed(0)
    layer, _ = gated_linear(torch.zeros(30, 30), torch.ones(30, 30))
    assert 0.4 < float((sampled(layer) != sampled(layer)).float().mean()) < 0.6


def test_one_sample_serves_a_whole_step_and_the_next_step_draws_another() -> None:
    torch.manual_seed(0)
    decoder = SoftAttention(
        SoftAttentionConfig(embedding=4, hidden=6, attention=5, context=4), features=7, vocabulary=9
    )
    mask = Supermask(decoder, initial=0.5)
    drawn: list[int] = []
    for gate in (module for module in decoder.modules() if isinstance(module, Gate)):
        gate.register_forward_hook(lambda *_: drawn.append(1))
    features, ids = torch.rand(2, 3, 7), torch.randint(4, 9, (2, 8))
    steps = []
    for _ in range(2):
        drawn.clear()
        with Supermask.one_sample():
            first = decoder.rnn.weight
            decoder(features, ids, ids)
            assert decoder.rnn.weight is first
        assert len(drawn) == len(mask.gates)
        steps.append(first.detach())
    assert bool((steps[0] != steps[1]).any())
    drawn.clear()
    assert decoder.rnn.weight is not decoder.rnn.weight
    assert len(drawn) == 2  # without it every look would draw its own


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_matrix_of_the_decoder_is_masked_and_no_bias(cell: Literal["lstm", "gru"]) -> None:
    shape = SoftAttentionConfig(cell=cell, embedding=4, hidden=6, attention=5, context=4)
    decoder = SoftAttention(shape, features=7, vocabulary=9)
    matrices = {name: p.shape for name, p in decoder.named_parameters() if name.endswith("weight")}
    biases = {name: p.detach().clone() for name, p in decoder.named_parameters() if name.endswith("bias")}
    mask = Supermask(decoder)
    assert {name: gate.shape for name, gate in mask.gates.items()} == matrices
    assert set(mask.gates) == {
        f"{module}.weight"
        for module in ("embedding", "initial", "key", "value", "query", "score", "rnn", "output")
        + (("candidate",) if cell == "gru" else ())
    }
    assert all(bool((gate == 5.0).all()) for gate in mask.gates.values())
    with torch.no_grad():
        for gate in mask.gates.values():
            gate.fill_(-5)
    plain = plain_state(decoder.eval())
    for name, value in biases.items():
        torch.testing.assert_close(plain[name], value, rtol=0, atol=0)
    assert bool((decoder.rnn.weight == 0).all())


def test_masked_set_of_the_published_decoder_counts_as_published() -> None:
    with torch.device("meta"):
        lstm = Supermask(SoftAttention(SoftAttentionConfig(cell="lstm"), features=832, vocabulary=9962))
        gru = Supermask(SoftAttention(SoftAttentionConfig(cell="gru"), features=832, vocabulary=9962))
    pooled = 512 * (1024 - 832)  # the first state is there projected from a vector of 1024, not 832
    assert lstm.size + pooled == 11_911_168
    assert gru.size + pooled == 11_255_808


def test_only_the_modules_asked_for_are_gated() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2))
    assert list(Supermask(model, modules=["1"]).gates) == ["1.weight"]
    assert list(Supermask(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Conv2d(1, 1, 1))).gates) == ["0.weight"]


def test_pull_grows_from_zero_to_one_along_half_a_cosine_and_stays() -> None:
    assert [ramp(step, 100) for step in (0, 50, 100, 150)] == pytest.approx([0, 0.5, 1, 1])
    assert ramp(25, 100) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert ramp(75, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_plain_names_hide_the_gates_machinery_and_lead_back() -> None:
    def pruned() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
        Supermask(model)
        return model

    torch.manual_seed(0)
    model, other = pruned(), pruned()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    state = plain_state(model)
    assert set(state) == {"0.weight", "0.weight.gate", "0.bias", "1.weight", "1.bias"}
    load_plain_state(other, state)
    for name, value in plain_state(other).items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_plain_state(other, {name: value for name, value in state.items() if name != "1.bias"})


@pytest.mark.parametrize("width", [1, 4])
def test_the_sparsity_gradient_through_a_draw_is_the_one_without(width: int) -> None:
    torch.manual_seed(4)
    layer, upstream = nn.Linear(40, 50), torch.randn(50, 40)
    mask = Supermask(layer, widths={"": width})
    own = mask.gates[".weight"]
    with torch.no_grad():
        own.normal_(std=3)
    assert own.shape == (50, 40 // width)

    masked = layer.train().weight
    of_captions = torch.autograd.grad((masked * upstream).sum(), own, retain_graph=True)[0]
    alone = torch.autograd.grad(mask.loss(0.9), own)[0]  # through the draw, which is then used up
    assert float(alone.abs().max()) > 0
    again = torch.autograd.grad(mask.loss(0.9), own)[0]
    torch.testing.assert_close(alone, again)

    together = (layer.weight * upstream).sum() + 3 * mask.loss(0.9)
    torch.testing.assert_close(torch.autograd.grad(together, own)[0], of_captions + 3 * alone)


def test_gates_that_moved_after_a_draw_are_counted_anew() -> None:
    layer, mask = gated_linear(torch.ones(4, 5))
    _ = layer.train().weight
    with torch.no_grad():
        mask.gates[".weight"][:2] = -1
    assert float(mask.loss(0.0).detach()) == pytest.approx(0.5)


def test_a_draw_without_gradients_does_not_take_them_from_the_loss() -> None:
    layer, mask = gated_linear(torch.ones(4, 5))
    with torch.no_grad():
        _ = layer.train().weight
    mask.loss(0.5).backward()  # type: ignore[no-untyped-call]
    assert mask.gates[".weight"].grad is not None


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("width", [1, 4])
def test_masked_weights_made_in_the_type_of_products_train_as_those_rounded_later(
    cell: Literal["lstm", "gru"], width: int
) -> None:
    torch.manual_seed(6)
    shape = SoftAttentionConfig(cell=cell, embedding=8, hidden=16, attention=12, context=8)
    decoder = SoftAttention(shape, features=20, vocabulary=40)
    widths = {"rnn": width, "output": width}
    mask = Supermask(decoder, initial=0.5, widths=widths)
    features, ids = torch.rand(3, 4, 20), torch.randint(4, 40, (6, 9))
    gates = [module for module in decoder.modules() if isinstance(module, Gate)]

    def gradients() -> dict[str, Tensor | None]:
        torch.manual_seed(7)
        decoder.zero_grad()
        with Supermask.one_sample(), torch.autocast("cpu", torch.bfloat16):
            types.append(
                {name: decoder.get_submodule(name).weight.dtype for name in ("embedding", "score", "rnn", "output")}
            )
            loss = nn.functional.cross_entropy(decoder.scores(features, ids, ids).float(), ids.flatten())
        (loss + mask.loss(0.9)).backward()  # type: ignore[no-untyped-call]
        return {name: one.grad for name, one in decoder.named_parameters()}

    types: list[dict[str, torch.dtype]] = []
    narrow = gradients()
    for gate in gates:
        gate.multiplied = False
    rounded_later = gradients()
    wide = dict.fromkeys(types[0], torch.float32)
    assert types == [wide | {"rnn": torch.bfloat16, "output": torch.bfloat16}, wide]
    assert narrow.keys() == rounded_later.keys()
    for name, gradient in narrow.items():
        assert gradient is not None and gradient.dtype is torch.float32
        torch.testing.assert_close(gradient, rounded_later[name], rtol=0, atol=0, msg=name)
