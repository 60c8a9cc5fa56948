"""The temperature gate of a bench: wait until the device is cool, but not forever, and record both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capprune_runtime import stopping
from capprune_runtime.errors import UsageError
from capprune_runtime.measure.environment import temperature_c
from capprune_runtime.measure.results import Cooldown

MAX_TEMPERATURE_C = 60.0  # of a processor: above an idle Raspberry Pi, well below the 80 °C at which it slows down
MAX_BATTERY_C = 37.0  # of a phone's battery
TIMEOUT_S = 60.0
LOOK_EVERY_S = 1.0

COOL, TIMED_OUT, NO_SENSOR = "cool", "timed out", "no sensor"
_WORST = (COOL, NO_SENSOR, TIMED_OUT)

Read = Callable[[], float | None]


@dataclass(frozen=True)
class Gate:
    """Settings of the temperature gate.

    Attributes:
        max_temperature_c: Highest temperature at which a case starts; None for the device's default.
        timeout_s: Longest time to wait for it; 0 to record the temperature without waiting.

    Raises:
        UsageError: A value is out of range.
    """

    max_temperature_c: float | None = None
    timeout_s: float = TIMEOUT_S

    def __post_init__(self) -> None:
        limit = self.max_temperature_c
        if limit is not None and not 0 < limit < 150:
            raise UsageError("no device is timed at this temperature", where="--max-temperature",
                             expected="more than 0 and less than 150 °C", found=limit)  # fmt: skip
        if not 0 <= self.timeout_s <= 86_400:
            raise UsageError("this is not a valid time to wait", where="--cooldown-timeout", expected="0 to 86400 s",
                             found=self.timeout_s)  # fmt: skip


def wait_until_cool(gate: Gate, *, default_c: float = MAX_TEMPERATURE_C, read: Read = temperature_c) -> Cooldown:
    """Wait until the device is at most as warm as the gate allows, or the longest time has passed.

    Args:
        gate: The settings.
        default_c: The limit if the gate has none.
        read: Returns the temperature in °C; None if the device does not report it.
    """
    limit_c = default_c if gate.max_temperature_c is None else gate.max_temperature_c
    started, first = time.monotonic(), read()
    now, waited_s = first, 0.0
    while now is not None and now > limit_c and waited_s < gate.timeout_s:
        stopping.raise_if_requested()
        time.sleep(min(LOOK_EVERY_S, gate.timeout_s - waited_s))
        now, waited_s = read(), time.monotonic() - started
    outcome = NO_SENSOR if now is None else COOL if now <= limit_c else TIMED_OUT
    return Cooldown(limit_c, gate.timeout_s, first, now, round(waited_s, 1), outcome)


def combined(cooldowns: Sequence[Cooldown]) -> Cooldown:
    """Return one record of several waits of one case: the highest temperatures, the total time, the worst outcome."""
    first = [one.before_c for one in cooldowns if one.before_c is not None]
    last = [one.after_c for one in cooldowns if one.after_c is not None]
    return Cooldown(
        cooldowns[0].max_temperature_c,
        cooldowns[0].timeout_s,
        max(first, default=None),
        max(last, default=None),
        round(sum(one.waited_s for one in cooldowns), 1),
        max((one.outcome for one in cooldowns), key=_WORST.index),
    )
