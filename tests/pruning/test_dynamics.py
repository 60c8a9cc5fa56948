from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from capprune.config.pruning import PruningConfig
from capprune.pruning.dynamics import FEWEST_STEPS, LATEST_CROSSING, crossing, least_kappa, pull_of
from capprune.pruning.supermask import Supermask, ramp
from capprune_runtime.errors import UnreachableTarget

SUPERMASK = PruningConfig(method="supermask", gate_learning_rate=100)  # as published; lambda follows from kappa
PRICED = PruningConfig(method="supermask")  # lambda is a price; the rate follows from kappa
PUBLISHED_SIZE, PUBLISHED_STEPS = 11_911_168, 531_325  # the Soft-Attention LSTM on COCO


def sparsity_weight(config: PruningConfig, *, steps: int, size: int) -> float:
    return pull_of(config, steps=steps, size=size).weight


def measured_crossing(size: int, steps: int, config: PruningConfig) -> float:
    """Train gates alone, without a caption's gradient; the fraction of the run at which they are at zero."""
    layer = nn.Linear(size, 1, bias=False)
    mask = Supermask(layer, initial=config.initial_gate)
    pull = pull_of(config, steps=steps, size=size)
    rate, eps = pull.gate_learning_rate, pull.gate_adam_eps
    weight = config.kappa * size / (rate / eps * steps)  # without what holds the target
    optimiser = torch.optim.Adam(mask.gates.values(), lr=rate, eps=eps, fused=True)
    for step in range(steps):
        loss = weight * ramp(step, steps) * mask.loss(config.sparsity)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if mask.sparsity() > 0.5:
            return (step + 1) / steps
    return math.inf


@pytest.mark.parametrize("steps", [150, 800])
@pytest.mark.parametrize("size", [100, 20_000])
@pytest.mark.parametrize(("base", "kappa"), [(SUPERMASK, 1_700), (SUPERMASK, 9_000), (PRICED, 1_700), (PRICED, 4_000)])
def test_gates_cross_when_predicted_whatever_the_size_and_the_length_of_the_run(
    size: int, steps: int, kappa: float, base: PruningConfig
) -> None:
    config = base.model_copy(update={"kappa": kappa})
    assert measured_crossing(size, steps, config) == pytest.approx(crossing(kappa, steps), rel=0.02)


def test_prediction_holds_for_another_start_and_another_optimiser() -> None:
    config = PruningConfig(
        method="supermask", kappa=1000, initial_gate=3, gate_learning_rate=30, gate_adam_eps=0.1, sparsity=0.8
    )
    assert measured_crossing(100, 500, config) == pytest.approx(crossing(1000, 500, initial=3), rel=0.02)


@pytest.mark.parametrize(
    ("kappa", "fraction"), [(8_922, 0.282), (1_700, 0.50), (2_600, 0.44), (2_200, 0.46), (72_000, 0.14)]
)
def test_published_runs_cross_where_their_logs_say(kappa: float, fraction: float) -> None:
    assert crossing(kappa, PUBLISHED_STEPS) == pytest.approx(fraction, abs=0.01)


def test_long_run_crosses_where_the_integral_of_the_ramp_says() -> None:
    travel = 10 + 2 * math.sinh(5)
    assert travel == pytest.approx(158.4, abs=0.1)
    for kappa in (400, 3000, 20_000):
        fraction = crossing(kappa, 10**6)
        assert fraction is not None
        integral = fraction / 2 - math.sin(math.pi * fraction) / (2 * math.pi)
        assert integral == pytest.approx(travel / kappa, rel=0.03)


def test_kappa_below_twice_the_travel_prunes_nothing() -> None:
    assert crossing(316, 10**6) is None
    assert crossing(322, 10**6) == pytest.approx(1, abs=0.01)


def test_lambda_is_derived_from_kappa() -> None:
    config = SUPERMASK.model_copy(update={"kappa": 3000.0})
    weight = sparsity_weight(config, steps=6000, size=5_000_000)
    assert weight == pytest.approx(250)
    assert sparsity_weight(config, steps=6000, size=10_000_000) == pytest.approx(500)
    assert sparsity_weight(config, steps=12_000, size=5_000_000) == pytest.approx(125)


def test_lambda_is_not_derived_below_what_holds_the_target() -> None:
    for sparsity, least in ((0.8, 15), (0.975, 120), (0.99, 300)):
        config = SUPERMASK.model_copy(update={"sparsity": sparsity})
        assert sparsity_weight(config, steps=PUBLISHED_STEPS, size=1_000_000) == pytest.approx(least)


def test_lambda_of_a_very_small_model_moves_gates_no_further_in_a_step_than_the_shortest_run() -> None:
    weight = sparsity_weight(SUPERMASK, steps=1000, size=2000)
    assert weight * 1e4 / 2000 == pytest.approx(3000 / FEWEST_STEPS)


def test_lambda_that_is_given_is_taken() -> None:
    config = SUPERMASK.model_copy(update={"sparsity_weight": 20.0})
    assert sparsity_weight(config, steps=PUBLISHED_STEPS, size=PUBLISHED_SIZE) == 20.0


@pytest.mark.parametrize("steps", [100, 600, PUBLISHED_STEPS])
def test_least_kappa_is_the_smallest_that_leaves_time_to_settle(steps: int) -> None:
    least = least_kappa(steps)
    at, below = crossing(least, steps), crossing(least / 1.02, steps)
    assert at is not None
    assert at <= LATEST_CROSSING
    assert below is None or below > LATEST_CROSSING


def test_kappa_that_is_too_small_is_refused_with_the_one_that_would_do() -> None:
    config = SUPERMASK.model_copy(update={"kappa": 300.0})
    with pytest.raises(UnreachableTarget, match=r"too weak to reach 97\.50% sparsity: kappa is 300") as raised:
        sparsity_weight(config, steps=1000, size=5_000_000)
    assert raised.value.exit_code == 2
    assert raised.value.where == "pruning.kappa"
    assert raised.value.hint is not None
    needed = float(raised.value.hint.partition("=")[2].split()[0])
    assert 500 < needed < 700
    assert sparsity_weight(config.model_copy(update={"kappa": needed}), steps=1000, size=5_000_000) > 0


def test_lambda_that_is_too_small_is_refused_with_the_one_that_would_do() -> None:
    config = SUPERMASK.model_copy(update={"sparsity_weight": 10.0})  # a published default that never pruned
    with pytest.raises(UnreachableTarget, match="kappa is 213") as raised:
        sparsity_weight(config, steps=113_280, size=53_122_512)
    assert raised.value.where == "pruning.sparsity_weight"
    assert raised.value.hint is not None
    needed = float(raised.value.hint.partition("=")[2].split()[0])
    enough = config.model_copy(update={"sparsity_weight": needed})
    assert sparsity_weight(enough, steps=113_280, size=53_122_512) == needed


def test_run_of_too_few_steps_is_refused() -> None:
    with pytest.raises(UnreachableTarget, match=r"(?s)99 training steps.*at least 100.*training\.epochs"):
        sparsity_weight(SUPERMASK, steps=FEWEST_STEPS - 1, size=1000)
    assert sparsity_weight(SUPERMASK, steps=FEWEST_STEPS, size=1000) > 0


@pytest.mark.parametrize(("steps", "size"), [(1_200, 2_000_000), (6_000, 16_000_000), (800, 50_000)])
def test_rate_follows_from_kappa_at_a_price_that_size_and_length_do_not_change(steps: int, size: int) -> None:
    pull = pull_of(PRICED, steps=steps, size=size)
    assert pull.weight == pytest.approx(40)  # nats for all of the sparsity: one for the last 2.5 %
    assert pull.weight * pull.gate_learning_rate / pull.gate_adam_eps * steps / size == pytest.approx(PRICED.kappa)
    assert pull.gate_adam_eps >= 10 * pull.weight / (4 * size)  # Adam stays gradient descent
    assert pull.crossed == crossing(PRICED.kappa, steps)


@pytest.mark.parametrize(("sparsity", "price", "held"), [(0.5, 20, 20), (0.8, 20, 20), (0.9, 20, 30), (0.95, 20, 60)])
def test_price_is_not_so_low_that_its_rate_lets_chance_choose(sparsity: float, price: float, held: float) -> None:
    pull = pull_of(PRICED.model_copy(update={"sparsity": sparsity}), steps=1600, size=1_350_000)
    assert (pull.weight, pull.held) == (pytest.approx(price), pytest.approx(held))
    assert pull.weight * pull.gate_learning_rate / pull.gate_adam_eps * 1600 / 1_350_000 == pytest.approx(PRICED.kappa)


def test_a_published_recipe_has_about_the_published_rate() -> None:
    recipe = PRICED.model_copy(update={"sparsity_weight": 20.0, "kappa": 8_922.0})
    assert pull_of(recipe, steps=PUBLISHED_STEPS, size=PUBLISHED_SIZE).gate_learning_rate == pytest.approx(
        100, rel=0.01
    )


def test_price_grows_to_what_holds_the_target_once_gates_have_crossed() -> None:
    pull = pull_of(PRICED, steps=6000, size=5_000_000)
    assert pull.at(0) == pull.at(pull.crossed) == pull.at(pull.crossed + 0.09) == pull.weight
    rising = [pull.at(pull.crossed + 0.1 + share / 40) for share in range(11)]
    assert rising == sorted(rising) and len(set(rising)) == 11
    assert pull.at(1) == pytest.approx(pull.held) == pytest.approx(120)


@pytest.mark.parametrize("base", [SUPERMASK, PRICED])
def test_lambda_that_is_given_never_grows(base: PruningConfig) -> None:
    pull = pull_of(base.model_copy(update={"sparsity_weight": 200.0}), steps=6000, size=5_000_000)
    assert pull.at(0) == pull.at(1) == 200


def test_shortest_run_is_not_pulled_harder_than_its_steps_can_bear() -> None:
    pull = pull_of(PRICED.model_copy(update={"kappa": 9_000.0}), steps=FEWEST_STEPS, size=5_000_000)
    speed = pull.weight * pull.gate_learning_rate / pull.gate_adam_eps / 5_000_000
    assert speed == pytest.approx(30)
