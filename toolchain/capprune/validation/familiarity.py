"""Choice of a bundle's familiarity: which photos look like those that it knows.

Fisher's discriminant separates train photos from drawn images that are no photos, over the pooled channels of `encode`.
It is joined with the caption's mean log-probability. The limit is the confidence that 5 % of the val photos do not reach.
Photos of other subjects are not part of the choice, so that many of them are taken for familiar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from capprune.data.captions import load_caption_set
from capprune.data.inputs import open_store
from capprune.data.non_photos import non_photos
from capprune_runtime.bundle.familiarity import KNOWN, LARGEST, Familiarity, channel_count
from capprune_runtime.bundle.preprocessing import RegionsSection
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.confidence import mean_log_probability
from capprune_runtime.caption.inputs import decode_input
from capprune_runtime.errors import MissingExtra

if TYPE_CHECKING:
    from capprune_runtime.bundle.verify import Bundle

MARKED: Final = 0.05  # share of the val photos below the limit
MEDIAN: Final = 0.9  # confidence of the median val photo
SPOKEN: Final = 0.5  # weight of the log-probability beside the discriminant, both in standard deviations over val
POOLED: Final = 128  # pooled channels
KNOWN_PHOTOS: Final = 500  # of train, evenly spaced
FEWEST: Final = 100  # photos of train, and of val
OF_EACH_KIND: Final = 24  # drawn images
SEED: Final = "calibration"
_DIGITS: Final = 6  # of a stored weight

Pooled = NDArray[np.float64]  # (photos, channels)


@dataclass(frozen=True)
class Looked:
    """Photos as the bundle sees them.

    Attributes:
        pooled: (N, channels), the pooled channels of each photo.
        spoken: (N), the mean log-probability of each caption.
    """

    pooled: Pooled
    spoken: NDArray[np.float64]


@dataclass(frozen=True)
class ChosenFamiliarity:
    """The familiarity and its basis.

    Attributes:
        chosen: What the runtime computes.
        share: Share of the val photos that are not familiar, 0 to 1.
        photos: Number of val photos.
        split: Their split.
        known: Number of train photos.
        drawn_share: For each kind of drawn image, the share that is not familiar when that kind is left out of the choice.
    """

    chosen: Familiarity
    share: float
    photos: int
    split: str
    known: int
    drawn_share: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return all attributes by name, with those of the familiarity among them."""
        facts = {key: value for key, value in asdict(self).items() if key != "chosen"}
        return {**facts, **asdict(self.chosen)}


def choose_familiarity(
    bundle: Bundle, folder: Path, said: Mapping[str, float], *, split: str, threads: int = 1
) -> ChosenFamiliarity | str:
    """Choose the familiarity of a bundle.

    Args:
        bundle: A verified bundle.
        folder: The data folder, with train photos and the validated ones.
        said: Mean log-probability per word of the caption of each validated photo.
        split: Split of these photos.
        threads: Threads of the interpreter.

    Returns:
        The choice; the reason if there is none.
    """
    if isinstance(bundle.manifest.preprocessing, RegionsSection):
        return "region features cannot be drawn"
    names = [photo.name for photo in load_caption_set(folder).photos if photo.split == "train"]
    if min(len(names), len(said)) < FEWEST:
        return f"it needs {FEWEST} train photos and {FEWEST} {split} photos, found {len(names)} and {len(said)}"
    known = names[:: max(1, len(names) // KNOWN_PHOTOS)][:KNOWN_PHOTOS]
    try:
        captioner = Captioner(bundle, threads=threads)
    except MissingExtra as error:
        return error.what
    val = Looked(pooled_photos(captioner, folder, sorted(said)), np.array([said[name] for name in sorted(said)]))
    drawn = {
        kind: look_at_all(captioner, images)
        for kind, images in non_photos(OF_EACH_KIND, SEED, bundle.manifest.photo_size).items()
    }
    seen = pooled_photos(captioner, folder, known)
    chosen = fit(seen, val, list(drawn.values()))
    if chosen is None:
        return "the photos look alike to this encoder"
    return ChosenFamiliarity(
        chosen,
        share=unfamiliar_share(chosen, val),
        photos=len(said),
        split=split,
        known=len(known),
        drawn_share=_left_out(seen, val, drawn),
    )


def pooled_count(bundle: Bundle) -> int:
    """Return the number of pooled channels of a bundle."""
    return min(POOLED, channel_count(bundle.manifest.interface))


def pooled_photos(captioner: Captioner, folder: Path, names: Sequence[str]) -> Pooled:
    """Return the pooled channels of photos of a data folder."""
    preprocessing, count = captioner.bundle.manifest.preprocessing, pooled_count(captioner.bundle)
    with open_store(folder, preprocessing) as store:
        store.require(names)
        return np.array(
            [captioner.pooled(decode_input(store.read(name), name, preprocessing), count) for name in names]
        )


def look_at_all(captioner: Captioner, images: Sequence[NDArray[np.uint8]]) -> Looked:
    """Return the pooled channels of images, and the mean log-probability of their captions."""
    count = pooled_count(captioner.bundle)
    spoken = [mean_log_probability(captioner.caption(image)) for image in images]
    return Looked(np.array([captioner.pooled(image, count) for image in images]), np.array(spoken))


def fit(known: Pooled, val: Looked, drawn: Sequence[Looked]) -> Familiarity | None:
    """Choose the weights; None if the photos do not differ.

    Args:
        known: Train photos.
        val: Photos for the limit.
        drawn: Images that are no photos, by kind.
    """
    direction = _discriminant(known, np.concatenate([one.pooled for one in drawn]))
    spread, spoken_spread = float((val.pooled @ direction).std()), float(val.spoken.std())
    if not (spread > 0 and spoken_spread > 0):
        return None
    weights, spoken = -direction / spread, SPOKEN / spoken_spread
    sums = val.pooled @ weights + spoken * val.spoken
    steep = math.log(MEDIAN / (1 - MEDIAN)) / float(np.quantile(sums, 0.5) - np.quantile(sums, MARKED) or np.inf)
    weights, spoken = np.array([_rounded(one) for one in steep * weights]), _rounded(steep * spoken)
    offset = _rounded(-float(np.quantile(val.pooled @ weights + spoken * val.spoken, MARKED)))
    if not (steep > 0 and max(np.abs(weights).max(), spoken, abs(offset)) <= LARGEST):
        return None
    return Familiarity(tuple(weights.tolist()), spoken, offset)


def confidences(chosen: Familiarity, looked: Looked) -> NDArray[np.float64]:
    """Return the confidence of each photo."""
    return np.array(
        [chosen.confidence(*one) for one in zip(looked.pooled, looked.spoken.tolist(), strict=True)], np.float64
    )


def unfamiliar_share(chosen: Familiarity, looked: Looked) -> float:
    """Return the share of photos that are not familiar."""
    return float(np.mean(confidences(chosen, looked) < KNOWN))


def _left_out(known: Pooled, val: Looked, drawn: Mapping[str, Looked]) -> dict[str, float]:
    """Return the share of each kind that a choice without this kind does not find familiar."""
    found = {kind: fit(known, val, [one for other, one in drawn.items() if other != kind]) for kind in drawn}
    return {kind: unfamiliar_share(one, drawn[kind]) for kind, one in found.items() if one is not None}


def _discriminant(known: Pooled, others: Pooled) -> NDArray[np.float64]:
    """Return Fisher's direction from photos to others, both with equal weight, shrunk by the mean variance."""
    means = known.mean(axis=0), others.mean(axis=0)
    within = np.cov(known.T, bias=True) + np.cov(others.T, bias=True)
    shrunk = within + np.trace(within) / len(within) * np.eye(len(within))
    if not np.trace(within) > 0:
        return np.zeros(len(within))
    return np.asarray(np.linalg.solve(shrunk, means[1] - means[0]), np.float64)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") + 0.0  # no negative zero
