"""When a caption may well be wrong: a limit on its mean log-probability, chosen where quality halves.

People who read captions instead of seeing the photo need to know. The limit is chosen on the photos of a validation, as the
highest below which captions score at most half of what all score; with the counts and both scores beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

HALF = 0.5  # of the mean CIDEr-D: below this, a caption is called unsure
FEWEST = 20  # captions on which a limit may rest


@dataclass(frozen=True)
class Confidence:
    """The limit and what it rests on.

    Attributes:
        low_below: Nats a word; None if no limit separates captions of half the quality.
        share: Share of the captions below it, 0 to 1.
        cider_d_below: Mean CIDEr-D of those.
        cider_d: Mean CIDEr-D of all.
        photos: How many were looked at.
        split: Which split they are of.
    """

    low_below: float | None
    share: float
    cider_d_below: float | None
    cider_d: float
    photos: int
    split: str

    def as_json(self) -> dict[str, object]:
        """All attributes by name."""
        return asdict(self)


def calibrate(mean_log_probability: Mapping[str, float], cider_d: Mapping[str, float], *, split: str) -> Confidence:
    """Choose the limit.

    Args:
        mean_log_probability: Of every photo's caption, nats a word.
        cider_d: Of every photo's caption.
        split: Which split they are of.
    """
    names = sorted(mean_log_probability, key=mean_log_probability.__getitem__)
    scores = np.array([cider_d[name] for name in names])
    below = np.cumsum(scores) / np.arange(1, len(names) + 1)  # mean of the least sure k + 1
    everything = float(scores.mean())
    worse = [k for k in range(FEWEST - 1, len(names) - 1) if below[k] <= HALF * everything]
    if not worse:
        return Confidence(None, 0.0, None, everything, len(names), split)
    last = worse[-1]
    limit = (mean_log_probability[names[last]] + mean_log_probability[names[last + 1]]) / 2
    return Confidence(round(limit, 4), (last + 1) / len(names), float(below[last]), everything, len(names), split)
