"""When a supermask run crosses to sparse, and whether it can.

Gate gradients lie far below Adam's eps, so Adam acts as gradient descent with momentum at the rate lr / eps, and the
whole run is governed by one number:

    kappa = lambda * (lr / eps) * T / size

Without the caption's gradient all gates fall together from their start m to 0, slowly and then within a few steps. In a
long run they arrive at the fraction tau where the integral of the ramp from 0 to tau reaches (2 m + 2 sinh m) / kappa,
158.4 / kappa for m = 5; in a short one momentum makes them late by some 15 to 40 steps. So one gate is followed step by
step, which holds for both.

Once they have fallen, lambda alone says where the model settles: short of the target, if the captions lose more by one
weight less than the lambda / size that it gains. Where the caption loss L is convex in the sparsity s its slope at s is
at most (L(1) - L(s)) / (1 - s), and between a model that can say nothing but frequent words and a trained one lie about
3 nats a word. So lambda is not derived below 3 / (1 - s), except for models so small that a step would move their gates
too far.
"""

from __future__ import annotations

import math

from capprune.config import PruningConfig
from capprune.pruning.supermask import ramp
from capprune_runtime.errors import UnreachableTarget

NATS_AT_STAKE = 3.0  # a word: the caption loss of a model without weights minus that of a trained one
STEEPEST = 30.0  # kappa / T, as of the shortest run: a gate at 0 moves by a quarter of it in a step
MOMENTUM = 0.9  # Adam's first beta
FINEST = 20_000  # steps followed at most; finer ones change the fraction by less than 0.002
FEWEST_STEPS = 100  # below this a step moves a gate so far that the target is overshot for good
LATEST_CROSSING = 0.8  # of the run: gates that fall later have no time left to settle


def crossing(kappa: float, steps: int, initial: float = 5.0) -> float | None:
    """The fraction of a run of T `steps` at which gates reach 0, or None when they never do."""
    steps = min(steps, FINEST)
    gate, speed = initial, 0.0
    for step in range(steps):
        probability = 1 / (1 + math.exp(-gate))
        pull = kappa / steps * ramp(step, steps) * probability * (1 - probability)
        speed = MOMENTUM * speed + (1 - MOMENTUM) * pull
        gate -= speed  # Adam's bias correction does nothing here: the first steps hardly pull
        if gate <= 0:
            return (step + 1) / steps
    return None


def least_kappa(steps: int, initial: float = 5.0) -> float:
    """The smallest kappa, to 1 %, that brings gates to 0 early enough to settle."""
    low, high = 1.0, 2.0
    while not _in_time(high, steps, initial):
        low, high = high, 2 * high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _in_time(middle, steps, initial) else (middle, high)
    return high


def sparsity_weight(config: PruningConfig, *, steps: int, size: int) -> float:
    """Lambda: the configured one, or the one that gives the configured kappa and holds the target once it is reached.

    Args:
        config: Of the run.
        steps: T, training steps in all.
        size: Prunable weights in all.

    Raises:
        UnreachableTarget: If the run is too short or its pull too weak to reach the target; says what would do.
    """
    if steps < FEWEST_STEPS:
        raise UnreachableTarget(
            f"{steps} training steps are too few to learn masks",
            expected=f"at least {FEWEST_STEPS} steps",
            hint="raise training.epochs or lower training.photos_per_batch",
        )
    rate = config.gate_learning_rate / config.gate_adam_eps
    given = config.sparsity_weight
    weight = _derived(config, steps, size, rate) if given is None else given
    kappa = weight * rate * steps / size
    if not _in_time(kappa, steps, config.initial_gate):
        least = least_kappa(steps, config.initial_gate)
        key = "pruning.kappa" if given is None else "pruning.sparsity_weight"
        needed = 1.001 * (least if given is None else least * size / (rate * steps))  # printed with four digits
        raise UnreachableTarget(
            f"the pull of this run is too weak to reach {config.sparsity:.2%} sparsity: kappa is {kappa:.0f}",
            where=key,
            expected=f"kappa of at least {least:.0f} (gates start at {config.initial_gate:g})",
            hint=f"{key}={needed:.4g} or more, or leave pruning.sparsity_weight out to have it derived",
        )
    return weight


def _derived(config: PruningConfig, steps: int, size: int, rate: float) -> float:
    holding = min(NATS_AT_STAKE / (1 - config.sparsity), STEEPEST * size / rate)
    return max(config.kappa * size / (rate * steps), holding)


def _in_time(kappa: float, steps: int, initial: float) -> bool:
    reached = crossing(kappa, steps, initial)
    return reached is not None and reached <= LATEST_CROSSING
