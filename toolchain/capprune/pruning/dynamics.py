"""Dynamics of a supermask run: when the gates close, which of them do, and whether the run reaches its target.

Gate gradients are far below Adam's eps, so Adam acts as gradient descent with momentum at the rate lr / eps. Two numbers
determine the run:

    kappa = lambda * (lr / eps) * T / size        and lambda itself

Kappa determines when gates close. Without the gradient of the caption loss, all gates fall together from their initial value
m to 0, slowly at first and then within a few steps. In a long run they reach 0 at the fraction tau of the run at which the
integral of the ramp from 0 to tau reaches (2 m + 2 sinh m) / kappa, which is 158.4 / kappa for m = 5. In a short run,
momentum delays them by some 15 to 40 steps. `crossing` therefore simulates one gate step by step, which is valid for both.

Lambda determines which weights are kept. It is the price of a unit of sparsity in nats of caption loss: a gate falls if its
weight reduces the loss by less. The published rate of 100 is meant for runs of 10^5 steps. At that rate, a run of 10^3 steps
reaches the same kappa only with a price 100x higher. No weight is worth that price: all gates fall at once, and the ones
above 0 when the target is reached are random. The price is therefore fixed and the rate follows from kappa, unless a rate
is configured. With a price far below 20, the rate that gives the same kappa is so high that the choice is random again.

At that price a small model may stop short of the target. Where the caption loss L is convex in the sparsity s, its slope at
s is at most (L(1) - L(s)) / (1 - s). A model that generates only frequent words and a trained one differ by about 3 nats per
word. Once the gates have crossed 0, the price therefore grows to 3 / (1 - s).

A gate must also be able to fall at that price before the run ends. The time to fall grows exponentially with the gate's
value. Without a bound, gates rise to values from which they cannot return: the first third of the run would decide which
weights are kept, and the target would be missed. Gates with a derived price therefore have a ceiling, from which they can
fall to 0 in a fifth of the run. There is no ceiling where a rate or a price is configured, as in the published recipes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from capprune.config.pruning import PruningConfig
from capprune.pruning.supermask import ramp
from capprune_runtime.errors import UnreachableTarget

NATS_AT_STAKE = 3.0  # per word: the caption loss of a model without weights minus that of a trained one
STEEPEST = 30.0  # kappa / T of the shortest run: a gate at 0 moves by a quarter of it per step
MOMENTUM = 0.9  # Adam's first beta
FINEST = 20_000  # maximum number of simulated steps; more change the fraction by less than 0.002
FEWEST_STEPS = 100  # with fewer steps, each moves a gate so far that the target is overshot for good
LATEST_CROSSING = 0.8  # fraction of the run; gates that fall later have no time left to settle
PRICE = 1.0  # lambda * (1 - s): nats for the remaining sparsity at the target
CHEAPEST = 20.0  # minimum lambda; below, the rate is so high that noise of the caption loss moves the gates
FAR_BELOW = 10.0  # ratio of Adam's eps to the largest gradient of the sparsity loss
FALL = 0.2  # fraction of the run in which a gate falls from its ceiling to 0
SETTLING, GROWTH = 0.1, 0.25  # fractions of the run: the wait after the crossing, and the growth of the price


@dataclass(frozen=True)
class Pull:
    """Strength of the sparsity loss, and the optimiser settings of the gates.

    Attributes:
        weight: Lambda until the gates have crossed 0.
        held: Lambda at the end of its growth after that.
        crossed: Fraction of the run at which gates reach 0 without the gradient of the caption loss.
        gate_learning_rate: Learning rate of the gates (Adam).
        gate_adam_eps: Epsilon of the gates' Adam.
        ceiling: Maximum value of a gate.
    """

    weight: float
    held: float
    crossed: float
    gate_learning_rate: float
    gate_adam_eps: float
    ceiling: float = math.inf

    def at(self, fraction: float) -> float:
        """Return lambda after `fraction` of the run."""
        grown = min(1.0, max(0.0, (fraction - self.crossed - SETTLING) / GROWTH))
        return float(self.weight * (self.held / self.weight) ** grown)


def crossing(kappa: float, steps: int, initial: float = 5.0) -> float | None:
    """Return the fraction of a run of T `steps` at which gates reach 0, or None if they never do."""
    steps = min(steps, FINEST)
    gate, speed = initial, 0.0
    for step in range(steps):
        probability = 1 / (1 + math.exp(-gate))
        pull = kappa / steps * ramp(step, steps) * probability * (1 - probability)
        speed = MOMENTUM * speed + (1 - MOMENTUM) * pull
        gate -= speed  # Adam's bias correction has no effect here: the ramp is near 0 in the first steps
        if gate <= 0:
            return (step + 1) / steps
    return None


def least_kappa(steps: int, initial: float = 5.0) -> float:
    """Return the smallest kappa, to 1 %, that brings gates to 0 early enough to settle."""
    low, high = 1.0, 2.0
    while not _in_time(high, steps, initial):
        low, high = high, 2 * high
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _in_time(middle, steps, initial) else (middle, high)
    return high


def highest(pull: float) -> float:
    """Return the highest value from which a gate falls to 0 under a constant pull of the sparsity loss.

    Args:
        pull: The rate times lambda / size, summed over the steps. A gate at M falls by s(1 - s) of it, with s = sigmoid(M).

    Returns:
        The M with 2 M + 2 sinh M = pull.
    """
    low, high = 0.0, math.asinh(pull / 2)
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if 2 * middle + 2 * math.sinh(middle) < pull else (low, middle)
    return high


def pull_of(config: PruningConfig, *, steps: int, size: int) -> Pull:
    """Return the pull for a config; values that the config does not set are derived.

    With a configured `gate_learning_rate`, lambda defaults to the value that gives the configured kappa at that rate, but at
    least to the value that holds the target. Otherwise lambda is a price, and the rate is the one that gives kappa.

    Args:
        config: The run's config.
        steps: T, total number of training steps.
        size: Total number of prunable weights.

    Raises:
        UnreachableTarget: If the run is too short or its pull too weak to reach the target; names the value that is needed.
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
    """Return when gates cross 0. If that is too late, raise an error with the value of `key` that would suffice."""
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
