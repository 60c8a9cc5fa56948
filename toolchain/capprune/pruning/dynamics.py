"""When a supermask run crosses to sparse, how it chooses what stays, and whether it reaches its target.

Gate gradients lie far below Adam's eps, so Adam acts as gradient descent with momentum at the rate lr / eps, and the
whole run is governed by two numbers:

    kappa = lambda * (lr / eps) * T / size        and lambda itself

Kappa says when: without the caption's gradient all gates fall together from their start m to 0, slowly and then within a
few steps. In a long run they arrive at the fraction tau where the integral of the ramp from 0 to tau reaches
(2 m + 2 sinh m) / kappa, 158.4 / kappa for m = 5; in a short one momentum makes them late by some 15 to 40 steps. So one
gate is followed step by step, which holds for both.

Lambda says what stays: it is the price of a unit of sparsity in nats of caption loss, and a gate falls if its weight earns
less. The published rate of 100 belongs to runs of 10^5 steps; a run of 10^3 steps reaches the same kappa at that rate only
by a price a hundred times as high, at which no weight earns its keep: all gates fall at once, and which of them are above 0
when the target is reached is chance. So the price is set and the rate follows from kappa, unless a rate is configured. A
price far below 20 would bring the chance back, with the high rate that it takes to give the same kappa.

At that price a small model may settle short of the target: where the caption loss L is convex in the sparsity s its slope
at s is at most (L(1) - L(s)) / (1 - s), and between a model that can say nothing but frequent words and a trained one lie
about 3 nats a word. So once the gates have crossed the price grows to 3 / (1 - s).

And a gate must be able to fall at that price before the run ends. The time that it takes grows with the exponential of where it
stands, and under a price of their own gates rise past anything that comes down again: what stays would be decided by the first
third of the run, and the target missed. So gates that follow a price have a ceiling, from which a fifth of the run brings them to
0. Where a rate or a price is configured, as in the published recipes, there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from capprune.config.pruning import PruningConfig
from capprune.pruning.supermask import ramp
from capprune_runtime.errors import UnreachableTarget

NATS_AT_STAKE = 3.0  # a word: the caption loss of a model without weights minus that of a trained one
STEEPEST = 30.0  # kappa / T, as of the shortest run: a gate at 0 moves by a quarter of it in a step
MOMENTUM = 0.9  # Adam's first beta
FINEST = 20_000  # steps followed at most; finer ones change the fraction by less than 0.002
FEWEST_STEPS = 100  # below this a step moves a gate so far that the target is overshot for good
LATEST_CROSSING = 0.8  # of the run: gates that fall later have no time left to settle
PRICE = 1.0  # lambda * (1 - s): nats for the sparsity that is left to gain at the target
CHEAPEST = 20.0  # lambda below which the rate that gives kappa is so high that the caption's noise moves the gates
FAR_BELOW = 10.0  # Adam's eps over the largest gradient that the pull gives a gate
FALL = 0.2  # of the run: what a gate takes from its ceiling to 0
SETTLING, GROWTH = 0.1, 0.25  # of the run: after the crossing, and for the price to grow to what holds the target


@dataclass(frozen=True)
class Pull:
    """How gates are pulled to a target.

    Attributes:
        weight: Lambda until the gates have crossed.
        held: What lambda grows to after that.
        crossed: Fraction of the run at which gates reach 0 without a caption's gradient.
        gate_learning_rate: Learning rate of the gates (Adam).
        gate_adam_eps: Epsilon of the gates' Adam.
        ceiling: No gate rises above this.
    """

    weight: float
    held: float
    crossed: float
    gate_learning_rate: float
    gate_adam_eps: float
    ceiling: float = math.inf

    def at(self, fraction: float) -> float:
        """Lambda when `fraction` of the run is done."""
        grown = min(1.0, max(0.0, (fraction - self.crossed - SETTLING) / GROWTH))
        return float(self.weight * (self.held / self.weight) ** grown)


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


def highest(pull: float) -> float:
    """From where a gate comes to 0 under a constant pull of the sparsity loss.

    Args:
        pull: The rate times lambda / size, summed over the steps; a gate at M falls by s(1 - s) of it, s being sigmoid(M).

    Returns:
        The M with 2 M + 2 sinh M = pull.
    """
    low, high = 0.0, math.asinh(pull / 2)
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if 2 * middle + 2 * math.sinh(middle) < pull else (low, middle)
    return high


def pull_of(config: PruningConfig, *, steps: int, size: int) -> Pull:
    """What a config asks of the gates, with what it leaves out derived.

    A configured `gate_learning_rate` is taken, and lambda, if that is left out, is what gives the configured kappa at that
    rate, but not less than holds the target. Otherwise lambda is a price, and the rate is what gives kappa.

    Args:
        config: The run's config.
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
    given, rate = config.sparsity_weight, config.gate_learning_rate
    if rate is None:
        price = max(PRICE / (1 - config.sparsity), CHEAPEST) if given is None else given
        eps = max(config.gate_adam_eps, FAR_BELOW * price / (4 * size))
        kappa = min(config.kappa, STEEPEST * steps)
        crossed = _checked(config, kappa, "pruning.kappa", config.kappa, steps)
        held = max(NATS_AT_STAKE / (1 - config.sparsity), price) if given is None else price
        top = math.inf if given else max(config.initial_gate, highest(FALL * kappa * held / price))
        return Pull(price, held, crossed, kappa * size / (price * steps) * eps, eps, top)
    speed = rate / config.gate_adam_eps
    weight = _derived(config, steps, size, speed) if given is None else given
    kappa = weight * speed * steps / size
    key, value = ("pruning.kappa", config.kappa) if given is None else ("pruning.sparsity_weight", given)
    crossed = _checked(config, kappa, key, value, steps)
    return Pull(weight, weight, crossed, rate, config.gate_adam_eps)


def _checked(config: PruningConfig, kappa: float, key: str, value: float, steps: int) -> float:
    """When gates cross, or what value of `key` would bring them to it in time."""
    reached = crossing(kappa, steps, config.initial_gate)
    if reached is not None and reached <= LATEST_CROSSING:
        return reached
    least = least_kappa(steps, config.initial_gate)
    needed = 1.001 * value * least / kappa  # printed with four digits
    raise UnreachableTarget(
        f"the pull of this run is too weak to reach {config.sparsity:.2%} sparsity: kappa is {kappa:.0f}",
        where=key,
        expected=f"kappa of at least {least:.0f} (gates start at {config.initial_gate:g})",
        hint=f"{key}={needed:.4g} or more, or leave pruning.sparsity_weight out to have it derived",
    )


def _derived(config: PruningConfig, steps: int, size: int, rate: float) -> float:
    holding = min(NATS_AT_STAKE / (1 - config.sparsity), STEEPEST * size / rate)
    return max(config.kappa * size / (rate * steps), holding)


def _in_time(kappa: float, steps: int, initial: float) -> bool:
    reached = crossing(kappa, steps, initial)
    return reached is not None and reached <= LATEST_CROSSING
