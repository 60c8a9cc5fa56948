"""The methods without learned masks, on a small model; what they do in a whole run stands in tests/training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from capprune.config.pruning import PruningConfig
from capprune.pruning.layers import prunable_layers
from capprune.pruning.state import load_plain_state, plain_state
from capprune.pruning.unlearned import GradualPruner, HardPruner, KeptMasks, LotteryPruner, MaskPruner, SnipPruner
from capprune_runtime.errors import ConfigError


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8, bias=False))


def config(method: str, sparsity: float = 0.75, **others: object) -> PruningConfig:
    return PruningConfig.model_validate({"method": method, "sparsity": sparsity, **others})


def zeros(module: nn.Module) -> float:
    weights = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def test_removed_weights_are_zero_get_no_gradient_and_do_not_come_back() -> None:
    net = model()
    pruner = HardPruner(net, config("hard"))
    pruner.begin(None)
    assert zeros(net) == pytest.approx(0.75) == pruner.sparsity()
    before = {name: weight.detach().clone() for name, weight in pruner.masks.weights().items()}
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        net(torch.randn(4, 16)).square().sum().backward()
        optimiser.step()
    assert zeros(net) == pytest.approx(0.75)
    for name, weight in pruner.masks.weights().items():
        mask = plain_state(net)[f"{name}.mask"]
        assert torch.equal(weight[~mask], before[name][~mask])
        assert not torch.equal(weight[mask], before[name][mask])


def test_hard_keeps_the_largest_of_all_layers_by_default() -> None:
    net = model()
    with torch.no_grad():
        net[2].weight.mul_(100)
    pruner = HardPruner(net, config("hard"))
    pruner.begin(None)
    assert pruner.kept() == {"0.weight": 0, "2.weight": 192}  # 192 of 768 weights stay, all in the large layer
    other = HardPruner(model(), config("hard", scope="uniform"))
    other.begin(None)
    assert other.kept() == {"0.weight": 128, "2.weight": 64}


def test_gradual_follows_the_cubic_between_its_two_steps() -> None:
    pruner = GradualPruner(model(), config("gradual", 0.8), steps=400, epoch=40)
    begin, end = 40, 200  # after the first epoch, at half of the run
    assert [pruner.scheduled(step) for step in (0, begin, end, 399)] == [0, 0, 0.8, 0.8]
    middle = (begin + end) // 2
    assert pruner.scheduled(middle) == pytest.approx(0.8 * (1 - 0.5**3), rel=0.02)
    seen = []
    for step in range(400):
        pruner.before(step)
        seen.append(pruner.sparsity())
    assert seen[begin - 1] == 0 and seen == sorted(seen)
    assert seen[-1] == pytest.approx(0.8, abs=2e-3)
    assert not GradualPruner(model(), config("gradual", 0.8), steps=400, epoch=40).at_target()
    assert pruner.at_target()


def test_gradual_masks_follow_the_weights_and_not_the_masks_before() -> None:
    net = model()
    pruner = GradualPruner(
        net, config("gradual", 0.5, gradual={"begin": 0.0, "end": 1.0, "updates": 2}), steps=4, epoch=1
    )
    pruner.before(2)
    weight = pruner.masks.weights()["2.weight"]
    closed = ~plain_state(net)["2.weight.mask"]
    with torch.no_grad():
        weight[closed] = 10.0
    pruner.before(4)
    assert bool(plain_state(net)["2.weight.mask"][closed].all())


def test_lottery_rewinds_the_weights_and_takes_the_trained_magnitudes() -> None:
    start, trained = model(0), model(1)
    state = {name: value.clone() for name, value in plain_state(trained).items()}
    before = copy.deepcopy(plain_state(start))
    ticket = LotteryPruner(start, config("lottery"), trained=state, masks={})
    ticket.begin(None)
    hard = HardPruner(trained, config("hard"))
    hard.begin(None)
    for name in ("0.weight", "2.weight"):
        assert torch.equal(plain_state(start)[f"{name}.mask"], plain_state(trained)[f"{name}.mask"])
        assert torch.equal(plain_state(start)[name], before[name])


def test_lottery_takes_over_the_masks_of_a_sparse_run() -> None:
    masks = {"0.weight": torch.rand(32, 16) > 0.5, "2.weight": torch.rand(8, 32) > 0.9}
    pruner = LotteryPruner(model(), config("lottery"), trained={}, masks=masks)
    pruner.begin(None)
    assert pruner.kept() == {name: int(mask.sum()) for name, mask in masks.items()}


def test_snip_ranks_by_the_magnitude_of_weight_times_gradient() -> None:
    net = model()
    pruner = SnipPruner(net, config("snip", 0.9))
    inputs = torch.randn(8, 16)

    def loss() -> Tensor:
        return net(inputs).square().mean()

    weights = pruner.masks.weights()
    gradients = torch.autograd.grad(loss(), list(weights.values()))
    saliency = torch.cat([(w * g).abs().flatten() for w, g in zip(weights.values(), gradients, strict=True)])
    signed = torch.cat([(w * g).flatten() for w, g in zip(weights.values(), gradients, strict=True)])
    pruner.begin(loss)
    mask = torch.cat([plain_state(net)[f"{name}.mask"].flatten() for name in weights])
    assert saliency[mask].min() >= saliency[~mask].max()
    assert bool((signed[mask] < 0).any())  # the signed rank would have none of these


def test_kept_masks_are_the_other_runs_and_other_layers_stay_dense() -> None:
    net = model()
    mask = torch.rand(8, 32) > 0.8
    pruner = KeptMasks(net, config("keep"), masks={"2.weight": mask})
    pruner.begin(None)
    assert pruner.kept() == {"2.weight": int(mask.sum())}
    assert zeros(net[0]) == 0


def test_left_out_layers_are_neither_masked_nor_counted() -> None:
    assert prunable_layers(model(), config("hard", exclude=["0"])) == ("2",)
    pruner = HardPruner(model(), config("hard", exclude=["0"]))
    pruner.begin(None)
    assert pruner.kept() == {"2.weight": 64}
    with pytest.raises(ConfigError, match=r"(?s)pruning\.exclude.*0, 2.*outptu"):
        prunable_layers(model(), config("hard", exclude=["outptu"]))
    with pytest.raises(ConfigError, match="no layer is left"):
        prunable_layers(model(), config("hard", exclude=["0", "2"]))


def test_masks_survive_saving_and_loading() -> None:
    net, other = model(), model(1)
    pruner = HardPruner(net, config("hard"))
    pruner.begin(None)
    MaskPruner(other, config("hard"))
    load_plain_state(other, plain_state(net))
    inputs = torch.randn(3, 16)
    assert torch.equal(other(inputs), net(inputs))
    assert {"0.weight", "0.weight.mask", "0.bias", "2.weight", "2.weight.mask"} == set(plain_state(net))


def test_a_mask_of_another_shape_is_refused() -> None:
    pruner = MaskPruner(model(), config("hard"))
    with pytest.raises(ValueError, match=r"does not fit 2\.weight"):
        pruner.masks.set({"2.weight": torch.ones(4, 32, dtype=torch.bool)})
