"""A threshold on the mean log-probability of a caption, below which it may well be wrong.

Users who read a caption instead of seeing the photo need this information. The threshold is chosen on the photos of a
validation: the highest one below which captions have at most half the mean score of all captions, and no more than a given
share of them. It is stored with the counts and both scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

HALF = 0.5  # of the mean CIDEr-D; below this, captions count as uncertain
FEWEST = 20  # minimum number of captions below a threshold


@dataclass(frozen=True)
class Confidence:
    """The threshold and its basis.

    Attributes:
        low_below: Nats per word; None if no threshold separates captions of half the quality.
        share: Share of the captions below it, 0 to 1.
        cider_d_below: Mean CIDEr-D of these captions.
        cider_d: Mean CIDEr-D of all captions.
        photos: Number of photos.
        split: Split of the photos.
    """

    low_below: float | None
    share: float
    cider_d_below: float | None
    cider_d: float
    photos: int
    split: str

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name."""
        return asdict(self)


def calibrate(
    mean_log_probability: Mapping[str, float], cider_d: Mapping[str, float], *, split: str, most: float = 1.0
) -> Confidence:
    """Choose the threshold.

    Args:
        mean_log_probability: Mean log-probability of every photo's caption, nats per word.
        cider_d: CIDEr-D of every photo's caption.
        split: Split of the photos.
        most: Largest share of captions below the threshold, 0 to 1.
    """
    names = sorted(mean_log_probability, key=mean_log_probability.__getitem__)
    scores = np.array([cider_d[name] for name in names])
    below = np.cumsum(scores) / np.arange(1, len(names) + 1)  # mean of the k + 1 captions with the lowest confidence
    everything = float(scores.mean())
    worse = [k for k in range(FEWEST - 1, min(int(most * len(names)), len(names) - 1)) if below[k] <= HALF * everything]
    if not worse:
        return Confidence(None, 0.0, None, everything, len(names), split)
    last = worse[-1]
    limit = (mean_log_probability[names[last]] + mean_log_probability[names[last + 1]]) / 2
    return Confidence(round(limit, 4), (last + 1) / len(names), float(below[last]), everything, len(names), split)
