"""Bootstrap intervals over photos.

Photos are drawn with replacement and their CIDEr-D is averaged. The document frequencies in CIDEr-D are those of the
whole set and are kept fixed, because they belong to the references, not to the system. Counting them again in each
resample would add the variance of the metric itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import DataError

CONFIDENCE = 0.95
RESAMPLES = 2000  # the ends of a 95 % interval then vary by about 2 % of its width between seeds
CHUNK = 200  # resamples per step: 200 x 5,000 photos of int64 are 8 MB


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile bootstrap interval.

    Attributes:
        estimate: The value on all photos.
        low: Lower end.
        high: Upper end.
        confidence: Confidence level, the share of such intervals that hold the true value (0 to 1).
        resamples: Number of resamples.
    """

    estimate: float
    low: float
    high: float
    confidence: float = CONFIDENCE
    resamples: int = RESAMPLES

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name."""
        return asdict(self)


@dataclass(frozen=True)
class Change:
    """Difference between two systems on the same photos.

    Attributes:
        before: Mean of the reference system.
        after: Mean of the other system.
        difference: after - before, with its paired interval.
        relative: (after - before) / before, with its paired interval; None if `before` is 0 here or in a resample.
    """

    before: float
    after: float
    difference: Interval
    relative: Interval | None

    @property
    def drop(self) -> float:
        """The relative loss: 0.02 for a decrease of 2 %, negative for a gain; 0 if `before` is 0."""
        return (self.before - self.after) / self.before if self.before > 0 else 0.0

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name, and the drop."""
        return {
            "before": self.before,
            "after": self.after,
            "difference": self.difference.as_json(),
            "relative": None if self.relative is None else self.relative.as_json(),
            "drop": self.drop,
        }


def bootstrap_mean(
    per_photo: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean of a score over photos, with its interval.

    Args:
        per_photo: (photos,) the score of each photo.
        seed: Seed of the resampling.
        resamples: Number of resamples.
        confidence: Confidence level of the interval (0 to 1).

    Returns:
        The mean and its interval.

    Raises:
        DataError: There are no photos.
    """
    scores = _columns(per_photo)
    means = _resampled_means(scores, seed=seed, resamples=resamples)[:, 0]
    return interval_of(float(scores.mean()), means, confidence)


def bootstrap_change(
    before: Sequence[float],
    after: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Change:
    """Return the difference between two systems on the same photos, resampled in pairs.

    Args:
        before: (photos,) the reference system's score of each photo.
        after: (photos,) the other system's, in the same order.
        seed: Seed of the resampling.
        resamples: Number of resamples.
        confidence: Confidence level of the intervals (0 to 1).

    Returns:
        Difference and relative difference of the means, with intervals.

    Raises:
        DataError: There are no photos, or not the same number of them.
    """
    if len(before) != len(after):
        raise DataError(
            "two systems can be compared on the same photos only",
            expected=f"{len(before)} photos",
            found=len(after),
        )
    scores = _columns(before, after)
    means = _resampled_means(scores, seed=seed, resamples=resamples)
    mean_before, mean_after = scores.mean(axis=0).tolist()
    differences = np.diff(means, axis=1)[:, 0]
    difference = interval_of(mean_after - mean_before, differences, confidence)
    relative = None
    if mean_before > 0 and (means[:, 0] > 0).all():
        relative = interval_of(difference.estimate / mean_before, differences / means[:, 0], confidence)
    return Change(mean_before, mean_after, difference, relative)


def _columns(*systems: Sequence[float]) -> NDArray[np.float64]:
    """Return the scores as an array (photos, systems)."""
    scores = np.stack([np.asarray(system, dtype=np.float64) for system in systems], axis=1)
    if not scores.size:
        raise DataError("there are no photos to average over")
    return scores


def _resampled_means(scores: NDArray[np.float64], *, seed: int, resamples: int) -> NDArray[np.float64]:
    """Return the means of resamples of the same size, drawn with replacement, (resamples, systems)."""
    photos = len(scores)
    draw = np.random.default_rng(seed)
    chunks: list[NDArray[np.float64]] = []
    for start in range(0, resamples, CHUNK):
        # Number of times that each photo is drawn: one matrix product then averages all systems over the same resample.
        counts = draw.multinomial(photos, np.full(photos, 1 / photos), size=min(CHUNK, resamples - start))
        chunks.append(counts @ scores / photos)
    return np.concatenate(chunks)


def interval_of(estimate: float, values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """Return an estimate with the percentile interval of its resampled values."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return Interval(estimate, low, high, confidence, len(values))
