"""Bundles that were timed in turns, compared: medians with intervals, and how many times faster where that is shown.

In a bench every round captions one photo with every bundle. The steps of a round have much in common (a photo, a moment, a
clock), so that rounds, not steps, are drawn again in the bootstrap; and a round meets all bundles alike, so that two bundles
are compared over the same draw.
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

FEWEST_ROUNDS = 10  # below which a bootstrap over rounds says little

ITSELF, OVERLAP, EMULATED, STAND_IN, FEW = (
    "the bundle itself",
    "the intervals overlap",
    "an emulated processor tells no speed",
    "a stand-in tells no speed",
    f"fewer than {FEWEST_ROUNDS} rounds",
)

Times = NDArray[np.float64]


@dataclass(frozen=True)
class SpeedRow:
    """One bundle of a bench.

    Attributes:
        name: What the table calls it.
        runtime: The interpreter.
        total_bytes: Of the bundle without its golden photos.
        decoder_bytes: Of its decoder's file.
        latency: Percentiles, in microseconds.
        step: The median step with its interval, in microseconds.
        caption: The median caption with its interval, in microseconds.
        faster: How many times less a step of the first row takes, with its interval; None where it is not shown.
        reason: Why it is not shown; empty where it is.
    """

    name: str
    runtime: str
    total_bytes: int
    decoder_bytes: int
    latency: Latency
    step: Interval
    caption: Interval
    faster: Interval | None
    reason: str

    def as_json(self) -> dict[str, Any]:
        """All attributes by name."""
        return asdict(self)


def compare(measurements: Sequence[Measurement], names: Sequence[str], *, seed: int = 0) -> tuple[SpeedRow, ...]:
    """The rows of a bench, the first of which the others are compared with.

    Args:
        measurements: Of kind "bench", one for each bundle, round by round in one order.
        names: What the table calls them.
        seed: Of the drawing.

    Raises:
        DataError: There is nothing to compare, or the bundles were not timed in the same rounds.
    """
    rounds = {len(one.captions) for one in measurements}
    if len(rounds) != 1 or rounds == {0}:
        raise DataError(
            "bundles can be compared over the same rounds only", expected="the same number", found=sorted(rounds)
        )
    count = rounds.pop()
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    steps = [_medians(one.captions, lambda said: said.step_us, draws) for one in measurements]
    captions = [_medians(one.captions, lambda said: (said.caption_us,), draws) for one in measurements]
    rows = []
    for place, (one, name) in enumerate(zip(measurements, names, strict=True)):
        reason = ITSELF if place == 0 else _silence(measurements[0], one, steps[0], steps[place])
        rows.append(
            SpeedRow(
                name,
                one.environment.runtime,
                sum(size for file, size in one.bundle.files.items() if not file.startswith(f"{GOLDEN_FOLDER}/")),
                sum(one.bundle.files.get(each.decoder, 0) for each in FORMATS.values()),
                one.latency,
                _interval(steps[place]),
                _interval(captions[place]),
                None if reason else _interval(steps[place] / steps[0]),
                reason,
            )
        )
    return tuple(rows)


def factor(row: SpeedRow) -> str:
    """How the first row's step compares with this one's, in words, or why that is not told."""
    if row.faster is None:
        return "" if row.reason == ITSELF else row.reason
    estimate, low, high = row.faster.estimate, row.faster.low, row.faster.high
    if estimate >= 1:
        return f"{estimate:.2f}x faster [{low:.2f}, {high:.2f}]"
    return f"{1 / estimate:.2f}x slower [{1 / high:.2f}, {1 / low:.2f}]"


def doubts(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """Why the times of some measurements cannot be trusted, each kind of reason once."""
    found: dict[str, str] = {}
    for one in measurements:
        for reason in one.verdict.reasons:
            found.setdefault(reason.code, reason.text)
    return tuple(found.values())


def _silence(first: Measurement, other: Measurement, ours: Times, theirs: Times) -> str:
    """Why no speed-up is told; empty where there is no reason."""
    where = (first.environment, other.environment)
    if any(one.stand_in is not None for one in where):
        return STAND_IN
    if any(one.emulated for one in where):
        return EMULATED
    if len(first.captions) < FEWEST_ROUNDS:
        return FEW
    one, two = _interval(ours), _interval(theirs)
    return OVERLAP if one.low <= two.high and two.low <= one.high else ""


def _medians(
    captions: Sequence[SaidPhoto], times_of: Callable[[SaidPhoto], Sequence[float]], draws: NDArray[np.int64]
) -> Times:
    """(1 + resamples,): the median over all rounds, then over each draw of rounds."""
    times = np.concatenate([np.asarray(times_of(one), np.float64) for one in captions])
    rounds = np.repeat(np.arange(len(captions)), [len(times_of(one)) for one in captions])
    order = np.argsort(times)
    times, rounds = times[order], rounds[order]
    found = [np.array([np.median(times)])]
    for start in range(0, len(draws), CHUNK):
        weights = draws[start : start + CHUNK, rounds].cumsum(axis=1)  # how often each time, or one below it, was drawn
        found.append(times[(2 * weights >= weights[:, -1:]).argmax(axis=1)])
    return np.concatenate(found)


def _interval(values: Times) -> Interval:
    return interval_of(float(values[0]), values[1:])
