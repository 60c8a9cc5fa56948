from __future__ import annotations

import numpy as np
import pytest

from capprune.metrics.intervals import bootstrap_change, bootstrap_mean
from capprune_runtime.errors import DataError

PHOTOS = 200
TRIALS = 300
RESAMPLES = 500
# 95 % of 300 trials, give or take three standard errors; the percentile bootstrap is a little short on
# skewed scores, so that the lower side gets one more.
COVERED = (0.95 - 4 * 0.0126, 0.95 + 3 * 0.0126)


def skewed(draw: np.random.Generator, photos: int = PHOTOS) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Scores shaped like CIDEr-D: many small ones, a few large; the true mean is 0.8."""
    return draw.gamma(1.6, 0.5, photos)


def test_interval_of_the_mean_covers_the_true_mean_in_95_of_100_trials() -> None:
    draw = np.random.default_rng(1)
    hits = 0
    for trial in range(TRIALS):
        interval = bootstrap_mean(skewed(draw).tolist(), seed=trial, resamples=RESAMPLES)
        hits += interval.low <= 0.8 <= interval.high
    assert COVERED[0] <= hits / TRIALS <= COVERED[1]


def test_intervals_of_the_change_cover_the_true_change_in_95_of_100_trials() -> None:
    draw = np.random.default_rng(2)
    hits_difference = hits_relative = 0
    for trial in range(TRIALS):
        before = skewed(draw)
        after = before * draw.uniform(0.8, 1.1, PHOTOS)  # loses 5 % on average: 0.80 to 0.76
        change = bootstrap_change(before.tolist(), after.tolist(), seed=trial, resamples=RESAMPLES)
        assert change.relative is not None
        hits_difference += change.difference.low <= -0.04 <= change.difference.high
        hits_relative += change.relative.low <= -0.05 <= change.relative.high
    assert COVERED[0] <= hits_difference / TRIALS <= COVERED[1]
    assert COVERED[0] <= hits_relative / TRIALS <= COVERED[1]


def test_pairing_narrows_the_interval_of_similar_systems() -> None:
    before = skewed(np.random.default_rng(3))
    after = before * 0.98
    paired = bootstrap_change(before.tolist(), after.tolist())
    unpaired = bootstrap_mean(before.tolist())
    assert paired.drop == pytest.approx(0.02)
    assert paired.difference.high - paired.difference.low < 0.1 * (unpaired.high - unpaired.low)


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    scores = skewed(np.random.default_rng(4)).tolist()
    assert bootstrap_mean(scores, seed=5) == bootstrap_mean(scores, seed=5)
    assert bootstrap_mean(scores, seed=5) != bootstrap_mean(scores, seed=6)


def test_interval_equals_the_plain_loop_over_resamples() -> None:
    scores = skewed(np.random.default_rng(5))
    draw = np.random.default_rng(6)
    means = [draw.choice(scores, PHOTOS).mean() for _ in range(4000)]
    interval = bootstrap_mean(scores.tolist(), resamples=4000)
    assert (interval.low, interval.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.006)
    assert interval.estimate == pytest.approx(scores.mean())


def test_number_of_resamples_is_what_was_asked_for() -> None:
    assert bootstrap_mean([0.1, 0.9], resamples=1234).resamples == 1234


def test_a_reference_of_zero_has_no_relative_change() -> None:
    change = bootstrap_change([0.0, 0.0], [0.5, 0.1])
    assert change.relative is None
    assert change.drop == 0
    assert change.difference.estimate == pytest.approx(0.3)
    assert change.as_json()["relative"] is None


def test_drop_is_known_where_the_relative_interval_is_not() -> None:
    change = bootstrap_change([0.0, 0.0, 1.0], [0.0, 0.0, 0.5])  # some resamples hold zeros only
    assert change.relative is None
    assert change.drop == pytest.approx(0.5)


def test_systems_on_different_photos_are_refused() -> None:
    with pytest.raises(DataError, match="same photos"):
        bootstrap_change([0.1, 0.2], [0.1])
    with pytest.raises(DataError, match="no photos"):
        bootstrap_mean([])
