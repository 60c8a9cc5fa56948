"""Bundles timed in turns: medians, intervals over rounds, and silence where nothing is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from measured import measurement, rounds
from numpy.typing import NDArray

from capprune.metrics import speed
from capprune.metrics.speed import (
    EMULATED,
    FEW,
    FEWEST_ROUNDS,
    ITSELF,
    OVERLAP,
    STAND_IN,
    compare,
    doubts,
    factor,
    faster_caption,
    fastest_threads,
)
from capprune_runtime.errors import DataError
from capprune_runtime.measure.results import Measurement

ROUNDS = 30


def bench(*typical_us: float, count: int = ROUNDS, noise: float = 0.05, **environment: Any) -> list[Measurement]:
    """Bundles whose steps take about so long, with noise that a round has in common."""
    slow = np.random.default_rng(1).lognormal(0, noise, count)
    return [
        measurement(f"bundle-{number}", rounds(us * slow, seed=number), **environment)
        for number, us in enumerate(typical_us)
    ]


def names(measurements: Sequence[Measurement]) -> list[str]:
    return [one.bundle.name for one in measurements]


def compared(measurements: Sequence[Measurement]) -> tuple[speed.SpeedRow, ...]:
    return compare(measurements, names(measurements))


def test_the_median_is_that_of_all_steps_and_lies_in_its_interval() -> None:
    measurements = bench(40, 120)
    for row, one in zip(compared(measurements), measurements, strict=True):
        steps = [us for said in one.captions for us in said.step_us]
        assert row.step.estimate == pytest.approx(np.median(steps))
        assert row.step.low <= row.step.estimate <= row.step.high
        assert row.caption.estimate == pytest.approx(np.median([said.caption_us for said in one.captions]))
        assert row.latency == one.latency


def test_how_many_times_faster_is_told_where_the_intervals_lie_apart() -> None:
    itself, slower, faster = compared(bench(40, 120, 20))
    assert (itself.faster, itself.reason) == (None, ITSELF)
    assert slower.faster is not None and slower.faster.low < 3 < slower.faster.high and not slower.reason
    assert faster.faster is not None and faster.faster.high < 1
    assert factor(slower).startswith(("2.9", "3.0")) and "x faster [" in factor(slower)
    assert factor(faster).startswith(("1.9", "2.0")) and "x slower [" in factor(faster)
    assert factor(itself) == ""


def test_a_factor_meets_the_same_rounds_and_so_varies_less_than_its_medians() -> None:
    """What makes a round slow makes it slow for both: drawn in pairs, the ratio hardly moves."""
    first, other = compared(bench(40, 200, noise=0.5))
    assert other.faster is not None
    assert (other.faster.high - other.faster.low) / 5 < 0.3 * (first.step.high - first.step.low) / 40


def test_nothing_is_told_where_the_intervals_overlap() -> None:
    _, other = compared(bench(40, 40.2))
    assert (other.faster, other.reason) == (None, OVERLAP)
    assert factor(other) == OVERLAP


@pytest.mark.parametrize(
    ("environment", "reason"),
    [({"emulated": True}, EMULATED), ({"stand_in": "a recorded phone"}, STAND_IN)],
)
def test_nothing_is_told_of_a_processor_that_is_none(environment: dict[str, Any], reason: str) -> None:
    _, other = compared(bench(40, 400, **environment))
    assert (other.faster, other.reason) == (None, reason)


def test_nothing_is_told_after_a_few_rounds() -> None:
    _, other = compared(bench(40, 400, count=FEWEST_ROUNDS - 1))
    assert (other.faster, other.reason) == (None, FEW)
    _, other = compared(bench(40, 400, count=FEWEST_ROUNDS))
    assert other.faster is not None


def test_bundles_that_were_not_timed_in_the_same_rounds_are_refused() -> None:
    with pytest.raises(DataError, match="same rounds"):
        compared([*bench(40), *bench(50, count=ROUNDS - 1)])
    with pytest.raises(DataError, match="same rounds"):
        compare([], [])


def test_resampled_medians_are_those_of_the_repeated_rounds() -> None:
    (one,) = bench(40)
    draws = np.random.default_rng(3).multinomial(ROUNDS, np.full(ROUNDS, 1 / ROUNDS), size=500)
    found = speed._medians(one.captions, lambda said: said.step_us, draws)
    assert len(found) == 501
    for draw, median in zip(draws, found[1:], strict=True):
        assert median == lower_median([us for said, times in zip(one.captions, draw, strict=True)
                                       for us in said.step_us * int(times)])  # fmt: skip


def lower_median(times: list[float]) -> float:
    ordered: NDArray[np.float64] = np.sort(times)
    return float(ordered[(len(ordered) - 1) // 2])


def test_the_share_in_the_interpreter_is_that_of_encoder_and_steps() -> None:
    (one,) = bench(40)
    halved = [dataclasses.replace(said, caption_us=2 * (said.encode_us + sum(said.step_us))) for said in one.captions]
    (row,) = compared([dataclasses.replace(one, captions=tuple(halved))])
    assert row.interpreter_share == pytest.approx(0.5)


def test_captions_are_compared_by_the_same_rules_as_steps() -> None:
    first, slow, alike = bench(400, 4000, 402)
    faster, reason = faster_caption(first, slow)
    medians = [np.median([said.caption_us for said in one.captions]) for one in (first, slow)]
    assert faster is not None and not reason and faster.estimate == pytest.approx(medians[1] / medians[0])
    assert faster.low < faster.estimate < faster.high
    assert faster_caption(first, alike) == (None, OVERLAP)
    with pytest.raises(DataError, match="same rounds"):
        faster_caption(first, bench(40, count=ROUNDS - 1)[0])


def test_a_reason_to_doubt_is_told_once() -> None:
    measurements = bench(40, 80, count=5)
    assert [one.verdict.reasons[0].code for one in measurements] == ["few", "few"]
    assert doubts(measurements) == ("5 times are too few to tell; at least 20 are needed",)
    assert not doubts(bench(40, 80))


def test_bytes_leave_the_golden_photos_out() -> None:
    (one,) = bench(40)
    files = {"manifest.json": 10, "decoder.onnx": 300, "encoder.onnx": 500, "golden/a.png": 7000}
    changed = dataclasses.replace(one, bundle=dataclasses.replace(one.bundle, files=files))
    (row,) = compared([changed])
    assert (row.total_bytes, row.decoder_bytes) == (810, 300)


def timed_with(threads: int, *typical_us: float, **environment: Any) -> list[Measurement]:
    return bench(*typical_us, threads=threads, **environment)


def test_a_row_is_compared_with_the_bundle_of_the_same_number_of_threads() -> None:
    measurements = [*timed_with(1, 40, 120), *timed_with(2, 20, 20.1)]
    one, baseline, two, other = compared(measurements)
    assert [row.threads for row in (one, baseline, two, other)] == [1, 1, 2, 2]
    assert baseline.faster is not None and 2.8 < baseline.faster.estimate < 3.2
    assert (two.reason, other.reason) == (ITSELF, OVERLAP)


def test_the_fastest_number_of_threads_is_that_of_the_shortest_caption() -> None:
    measurements = [*timed_with(1, 40, 5), *timed_with(2, 20), *timed_with(4, 30)]
    found = fastest_threads(measurements, compared(measurements))
    assert (found.threads, found.alike, found.reason) == (2, (), "")
    measurements = [*timed_with(1, 40), *timed_with(2, 39.9), *timed_with(4, 80)]
    found = fastest_threads(measurements, compared(measurements))
    assert found.threads in (1, 2) and {found.threads, *found.alike} == {1, 2}


def test_no_number_of_threads_is_the_fastest_on_a_processor_that_is_none() -> None:
    measurements = [*timed_with(1, 40, emulated=True), *timed_with(2, 20, emulated=True)]
    found = fastest_threads(measurements, compared(measurements))
    assert (found.threads, found.alike, found.reason) == (None, (), EMULATED)
