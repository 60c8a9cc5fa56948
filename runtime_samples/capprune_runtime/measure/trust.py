"""Decide whether the times of a measurement can be trusted, with reasons if not."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from capprune_runtime.measure.environment import Environment, Moment

FEWEST = 20  # photos; with fewer a median is not reliable
LARGEST_SPREAD = 0.25  # (p75 - p25) / p50 of the encoder, whose work is the same for every photo
LARGEST_DRIFT = 0.1  # from the first quarter of the photos to the last
HOT_C = 80.0  # the temperature at which a Raspberry Pi starts to slow down

STEADY, UNSTEADY, THROTTLED, HOT, UNKNOWN = "steady", "unsteady", "throttled", "hot", "unknown"

_THROTTLED_NOW = 0xF  # of the Pi's flags: under-voltage, capped, throttled, soft limit
_THROTTLED_EVER = 0xF0000  # the same flags since it was switched on


@dataclass(frozen=True)
class Reason:
    """A reason not to trust times: a code for programs, and a sentence."""

    code: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """Verdict on the times.

    Attributes:
        trusted: Whether there is no reason against it.
        thermal: `steady`, `hot`, `throttled`, or `unknown` if the device has no such sensor.
        stability: `steady`, `unsteady`, or `unknown` with too few photos.
        drift: Relative slowdown of the encoder from the first quarter of the photos to the last; or None.
        reasons: Reasons not to trust the times, the most important first.
    """

    trusted: bool
    thermal: str
    stability: str
    drift: float | None
    reasons: tuple[Reason, ...]


def judge(environment: Environment, encode_us: Sequence[float]) -> Verdict:
    """Judge times by their environment and their spread.

    Args:
        environment: The machine of the measurement.
        encode_us: The encoder's time for each photo, in measured order.
    """
    thermal = _thermal(environment.before, environment.after)
    drift = _drift(encode_us) if len(encode_us) >= FEWEST else None
    spread = _spread(encode_us) if len(encode_us) >= FEWEST else None
    stability = UNKNOWN
    if drift is not None and spread is not None:
        stability = STEADY if abs(drift) <= LARGEST_DRIFT and spread <= LARGEST_SPREAD else UNSTEADY
    reasons = (
        *_where_reasons(environment),
        *_thermal_reasons(thermal, environment.after),
        *_times_reasons(len(encode_us), drift, spread),
    )
    return Verdict(not reasons, thermal, stability, drift, reasons)


def _where_reasons(environment: Environment) -> list[Reason]:
    reasons = []
    if environment.stand_in is not None:
        reasons.append(Reason("stand_in", f"{environment.stand_in} played the device: these times are not a device's"))
    if environment.emulated:
        reasons.append(Reason("emulated", "the processor is emulated: these times mean nothing"))
    load, cpus = environment.before.load_average, environment.cpu_count
    if load is not None and load + environment.threads > cpus:
        reasons.append(Reason("busy", f"{load:.1f} other processes ran on {cpus} processors when it began"))
    return reasons


def _thermal(before: Moment, after: Moment) -> str:
    flags, earlier = after.throttled_flags, before.throttled_flags
    if flags is not None and earlier is not None:
        new = flags & ~earlier & _THROTTLED_EVER
        if (flags | earlier) & _THROTTLED_NOW or new:
            return THROTTLED
    if None not in (after.throttle_count, before.throttle_count) and after.throttle_count != before.throttle_count:
        return THROTTLED
    if (after.thermal_status or 0) >= 1:
        return THROTTLED
    if after.temperature_c is not None and after.temperature_c >= HOT_C:
        return HOT
    told = (flags, after.throttle_count, after.thermal_status, after.temperature_c)
    return STEADY if any(value is not None for value in told) else UNKNOWN


def _thermal_reasons(thermal: str, after: Moment) -> list[Reason]:
    if thermal == THROTTLED:
        return [Reason("throttled", "the device slowed its processor down, for its heat or its power supply")]
    if thermal == HOT:
        return [Reason("hot", f"the device was at {after.temperature_c:.0f} °C in the end: it may have slowed down")]
    return []


def _times_reasons(count: int, drift: float | None, spread: float | None) -> list[Reason]:
    if drift is None or spread is None:
        return [Reason("few", f"{count} times are too few to tell; at least {FEWEST} are needed")]
    reasons = []
    if abs(drift) > LARGEST_DRIFT:
        reasons.append(Reason("drift", f"the encoder's time changed by {drift:+.0%} from the first photos to the last"))
    if spread > LARGEST_SPREAD:
        reasons.append(Reason("spread", f"half of the encoder's times lie {spread:.0%} of the median apart"))
    return reasons


def _drift(times: Sequence[float]) -> float:
    quarter = max(len(times) // 4, 1)
    return statistics.median(times[-quarter:]) / statistics.median(times[:quarter]) - 1


def _spread(times: Sequence[float]) -> float:
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / middle
