"""Comparison of bundles with interleaved timing: medians with intervals, and speed-ups if they can be shown.

In a bench every round captions one photo with every bundle. The steps of a round are correlated (same photo, time and
clock frequency), so the bootstrap resamples rounds, not steps. All bundles share the rounds, so two bundles are
compared over the same resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune.metrics.intervals import CHUNK, RESAMPLES, Interval, interval_of
from capprune_runtime.bundle.manifest import GOLDEN_FOLDER
from capprune_runtime.errors import DataError
from capprune_runtime.formats import FORMATS
from capprune_runtime.measure.results import Latency, Measurement, SaidPhoto

FEWEST_ROUNDS = 10  # with fewer rounds the intervals are unreliable

ITSELF, OVERLAP, EMULATED, STAND_IN, FEW = (
    "the bundle itself",
    "the intervals overlap",
    "speed on an emulated processor is meaningless",
    "speed on a stand-in is meaningless",
    f"fewer than {FEWEST_ROUNDS} rounds",
)

Times = NDArray[np.float64]


@dataclass(frozen=True)
class SpeedRow:
    """One bundle of a bench.

    Attributes:
        name: Name in the table.
        runtime: The interpreter.
        threads: Its number of threads.
        total_bytes: Size of the bundle without its golden photos.
        decoder_bytes: Size of its decoder's file.
        latency: Percentiles, in microseconds.
        step: The median step with its interval, in microseconds.
        caption: The median caption with its interval, in microseconds.
        interpreter_share: Median share of a caption's time in calls of the interpreter (encoder and steps), 0 to 1; the
            rest is the search and other host code.
        faster: Speed-up of the bundle's own step over this one, both with the same number of threads, with its
            interval; None if it is not shown.
        reason: Why it is not shown; empty if it is.
    """

    name: str
    runtime: str
    threads: int
    total_bytes: int
    decoder_bytes: int
    latency: Latency
    step: Interval
    caption: Interval
    interpreter_share: float
    faster: Interval | None
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return all attributes by name."""
        return asdict(self)


@dataclass(frozen=True)
class FastestThreads:
    """The number of threads with which a bundle generates captions fastest.

    Attributes:
        threads: The number with the shortest median caption; None if the times do not show it.
        alike: Other numbers whose intervals overlap with its interval.
        reason: Why `threads` is None; empty if it is not.
    """

    threads: int | None
    alike: tuple[int, ...]
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return all attributes by name."""
        return asdict(self)


def compare(measurements: Sequence[Measurement], names: Sequence[str], *, seed: int = 0) -> tuple[SpeedRow, ...]:
    """Return the rows of a bench; each is compared with the first of the same number of threads.

    Args:
        measurements: Measurements of kind "bench", one for each bundle, with the same rounds in the same order.
        names: Names in the table.
        seed: Seed of the resampling.

    Raises:
        DataError: There is nothing to compare, or the bundles were not timed in the same rounds.
    """
    rounds = {len(one.captions) for one in measurements}
    if len(rounds) != 1 or rounds == {0}:
        raise DataError(
            "bundles can be compared over the same rounds only", expected="the same number", found=sorted(rounds)
        )
    draws = _draws(rounds.pop(), seed)
    steps = [_medians(one.captions, lambda said: said.step_us, draws) for one in measurements]
    captions = [_medians(one.captions, lambda said: (said.caption_us,), draws) for one in measurements]
    rows = []
    firsts: dict[int, int] = {}  # number of threads: place of its first measurement
    for place, (one, name) in enumerate(zip(measurements, names, strict=True)):
        first = firsts.setdefault(one.environment.threads, place)
        reason = ITSELF if place == first else _silence(measurements[first], one, steps[first], steps[place])
        rows.append(
            SpeedRow(
                name,
                one.environment.runtime,
                one.environment.threads,
                sum(size for file, size in one.bundle.files.items() if not file.startswith(f"{GOLDEN_FOLDER}/")),
                sum(one.bundle.files.get(each.decoder, 0) for each in FORMATS.values()),
                one.latency,
                _interval(steps[place]),
                _interval(captions[place]),
                float(np.median([(said.encode_us + sum(said.step_us)) / said.caption_us for said in one.captions])),
                None if reason else _interval(steps[place] / steps[first]),
                reason,
            )
        )
    return tuple(rows)


def faster_caption(first: Measurement, other: Measurement, *, seed: int = 0) -> tuple[Interval | None, str]:
    """Return how many times faster a caption of the first is, and the reason if it is not shown.

    Args:
        first: A measurement of kind "bench".
        other: One with the same rounds in the same order.
        seed: Seed of the resampling.

    Raises:
        DataError: The two were not timed in the same rounds.
    """
    counts = len(first.captions), len(other.captions)
    if counts[0] != counts[1]:
        raise DataError("captions can be compared over the same rounds only", expected=counts[0], found=counts[1])
    draws = _draws(counts[0], seed)
    ours, theirs = (_medians(one.captions, lambda said: (said.caption_us,), draws) for one in (first, other))
    reason = _silence(first, other, ours, theirs)
    return (None if reason else _interval(theirs / ours)), reason


def fastest_threads(measurements: Sequence[Measurement], rows: Sequence[SpeedRow]) -> FastestThreads:
    """Return the number of threads with the shortest median caption of the bundle itself.

    Args:
        measurements: Measurements of a bench with several numbers of threads.
        rows: Their rows, from `compare`.
    """
    if reason := next(filter(None, map(_meaningless, measurements)), ""):
        return FastestThreads(None, (), reason)
    own = [row for row in rows if row.reason == ITSELF]
    best = min(own, key=lambda row: row.caption.estimate)
    alike = [row.threads for row in own if row is not best and row.caption.low <= best.caption.high]
    return FastestThreads(best.threads, tuple(alike), "")


def factor(row: SpeedRow) -> str:
    """Return the comparison of the first row's step with this one's as text, or the reason why there is none."""
    if row.faster is None:
        return "" if row.reason == ITSELF else row.reason
    estimate, low, high = row.faster.estimate, row.faster.low, row.faster.high
    if estimate >= 1:
        return f"{estimate:.2f}x faster [{low:.2f}, {high:.2f}]"
    return f"{1 / estimate:.2f}x slower [{1 / high:.2f}, {1 / low:.2f}]"


def doubts(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """Return why the times of some measurements may be unreliable, each kind of reason once."""
    found: dict[str, str] = {}
    for one in measurements:
        for reason in one.verdict.reasons:
            found.setdefault(reason.code, reason.text)
    return tuple(found.values())


def _silence(first: Measurement, other: Measurement, ours: Times, theirs: Times) -> str:
    """Return why no speed-up is reported; empty if there is no reason."""
    if reason := _meaningless(first) or _meaningless(other):
        return reason
    one, two = _interval(ours), _interval(theirs)
    return OVERLAP if one.low <= two.high and two.low <= one.high else ""


def _meaningless(one: Measurement) -> str:
    """Return why the times of a measurement show no speed; empty if there is no reason."""
    if one.environment.stand_in is not None:
        return STAND_IN
    if one.environment.emulated:
        return EMULATED
    return FEW if len(one.captions) < FEWEST_ROUNDS else ""


def _medians(
    captions: Sequence[SaidPhoto], times_of: Callable[[SaidPhoto], Sequence[float]], draws: NDArray[np.int64]
) -> Times:
    """Return (1 + resamples,): the median over all rounds, then over each resample of rounds."""
    times = np.concatenate([np.asarray(times_of(one), np.float64) for one in captions])
    rounds = np.repeat(np.arange(len(captions)), [len(times_of(one)) for one in captions])
    order = np.argsort(times)
    times, rounds = times[order], rounds[order]
    found = [np.array([np.median(times)])]
    for start in range(0, len(draws), CHUNK):
        weights = draws[start : start + CHUNK, rounds].cumsum(axis=1)  # cumulative number of draws of the sorted times
        found.append(times[(2 * weights >= weights[:, -1:]).argmax(axis=1)])
    return np.concatenate(found)


def _draws(count: int, seed: int) -> NDArray[np.int64]:
    """Return (resamples, count): how often each round is drawn."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)


def _interval(values: Times) -> Interval:
    return interval_of(float(values[0]), values[1:])
