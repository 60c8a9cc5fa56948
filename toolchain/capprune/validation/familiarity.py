"""Choice of a bundle's familiarity: which photos look like those that it knows.

Three signs are added, over the pooled channels of `encode`: Fisher's discriminant between train photos and drawn images that
are no photos; how rare the photo's subjects are among the train photos (`subjects`), predicted from the channels; and the
caption's mean log-probability. 5 % of the val photos are not familiar, and the captions of 9 % more are marked as unsure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from capprune.data.captions import CaptionedPhoto, load_caption_set
from capprune.data.non_photos import non_photos
from capprune.data.photos import open_photos
from capprune.validation.subjects import SIZE, mean_features, rarity
from capprune_runtime.bundle.familiarity import KNOWN, LARGEST, SURE, Familiarity, channel_count
from capprune_runtime.bundle.preprocessing import RegionsSection
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.confidence import mean_log_probability
from capprune_runtime.errors import MissingExtra
from capprune_runtime.photo import read_photo

if TYPE_CHECKING:
    from capprune_runtime.bundle.verify import Bundle

UNFAMILIAR: Final = 0.05  # share of the val photos with a confidence below KNOWN
UNSURE: Final = 0.14  # share with a confidence below SURE
MOST_UNLIKELY: Final = 0.025  # share of the captions that are marked for their log-probability, beside those
DRAWN, RARE, SPOKEN = 0.5, 1.0, 0.1  # weights of the three signs, each in standard deviations over val
POOLED: Final = 256  # pooled channels
KNOWN_PHOTOS: Final = 1000  # of train, evenly spaced
SHRUNK: Final = 1.0  # weight of the penalty in the prediction of rarity, times the number of photos
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
class Known:
    """Train photos.

    Attributes:
        pooled: (N, channels), the pooled channels of each photo.
        rare: (N), how rare its subjects are; see `subjects.rarity`.
    """

    pooled: Pooled
    rare: NDArray[np.float64]


@dataclass(frozen=True)
class ChosenFamiliarity:
    """The familiarity and its basis.

    Attributes:
        chosen: What the runtime computes.
        share: Share of the val photos that are not familiar, 0 to 1.
        unsure_share: Share of them that are familiar and whose caption is marked as unsure for the photo's confidence.
        photos: Number of val photos.
        split: Their split.
        known: Number of train photos.
        drawn_share: For each kind of drawn image, the share that is not familiar when that kind is left out of the choice.
    """

    chosen: Familiarity
    share: float
    unsure_share: float
    photos: int
    split: str
    known: int
    drawn_share: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return all attributes by name, with those of the familiarity among them."""
        facts = {key: value for key, value in asdict(self).items() if key != "chosen"}
        return {**facts, **asdict(self.chosen)}


def choose_familiarity(
    bundle: Bundle,
    folder: Path,
    said: Mapping[str, float],
    *,
    split: str,
    known: Sequence[Path] = (),
    threads: int = 1,
) -> ChosenFamiliarity | str:
    """Choose the familiarity of a bundle.

    Args:
        bundle: A verified bundle.
        folder: The data folder, with train photos and the validated ones.
        said: Mean log-probability per word of the caption of each validated photo.
        split: Split of these photos.
        known: Further data folders that the bundle was trained on; their photos are known, and those of `split` are among
            the photos that the limit is chosen on.
        threads: Threads of the interpreter.

    Returns:
        The choice; the reason if there is none.
    """
    preprocessing = bundle.manifest.preprocessing
    if isinstance(preprocessing, RegionsSection):
        return "region features cannot be drawn"
    sets = [(one, load_caption_set(one).photos) for one in (folder, *known)]
    train = _of_split(sets, "train")
    if min(len(train), len(said)) < FEWEST:
        return f"it needs {FEWEST} train photos and {FEWEST} {split} photos, found {len(train)} and {len(said)}"
    chosen_photos = train[:: max(1, len(train) // KNOWN_PHOTOS)][:KNOWN_PHOTOS]
    try:
        captioner = Captioner(bundle, threads=threads)
        rare = rarity(mean_features(_squares(chosen_photos, SIZE)))
    except MissingExtra as error:
        return error.what
    count = pooled_count(bundle)
    validated = [
        Looked(
            _pooled(captioner, [(folder, name) for name in sorted(said)], preprocessing.size),
            np.array([said[name] for name in sorted(said)]),
        ),
        look_at_all(captioner, _squares(_of_split(sets[1:], split), preprocessing.size), count),
    ]
    val = Looked(np.concatenate([one.pooled for one in validated]), np.concatenate([one.spoken for one in validated]))
    drawn = {
        kind: look_at_all(captioner, images, count)
        for kind, images in non_photos(OF_EACH_KIND, SEED, bundle.manifest.photo_size).items()
    }
    seen = Known(_pooled(captioner, chosen_photos, preprocessing.size), rare)
    chosen = fit(seen, val, list(drawn.values()))
    if chosen is None:
        return "the photos look alike to this encoder"
    return ChosenFamiliarity(
        chosen,
        share=unfamiliar_share(chosen, val),
        unsure_share=float(np.mean(confidences(chosen, val) < SURE)) - unfamiliar_share(chosen, val),
        photos=len(val.spoken),
        split=split,
        known=len(seen.rare),
        drawn_share=_left_out(seen, val, drawn),
    )


def pooled_count(bundle: Bundle) -> int:
    """Return the number of pooled channels of a bundle."""
    return min(POOLED, channel_count(bundle.manifest.interface))


def look_at_all(captioner: Captioner, images: Iterable[NDArray[np.uint8]], count: int) -> Looked:
    """Return `count` pooled channels of each image, and the mean log-probabilities of the captions."""
    pooled, spoken = [], []
    for image in images:
        pooled.append(captioner.pooled(image, count))
        spoken.append(mean_log_probability(captioner.caption(image)))
    return Looked(np.array(pooled).reshape(-1, count), np.array(spoken))


def fit(known: Known, val: Looked, drawn: Sequence[Looked]) -> Familiarity | None:
    """Choose the weights; None if the photos do not differ.

    Args:
        known: Train photos.
        val: Photos for the limit.
        drawn: Images that are no photos, by kind.
    """
    spoken_spread = float(val.spoken.std())
    weights = np.zeros(val.pooled.shape[1])
    for share, direction in (
        (DRAWN, _discriminant(known.pooled, np.concatenate([one.pooled for one in drawn]))),
        (RARE, _prediction(known.pooled, known.rare)),
    ):
        spread = float((val.pooled @ direction).std())
        if spread > 0:
            weights -= share * direction / spread
    if not (weights.any() and spoken_spread > 0):
        return None
    spoken = SPOKEN / spoken_spread
    sums = val.pooled @ weights + spoken * val.spoken
    apart = float(np.quantile(sums, UNSURE) - np.quantile(sums, UNFAMILIAR))
    if not apart > 0:
        return None
    steep = math.log(SURE / (1 - SURE)) / apart
    weights, spoken = np.array([_rounded(one) for one in steep * weights]), _rounded(steep * spoken)
    offset = _rounded(-float(np.quantile(val.pooled @ weights + spoken * val.spoken, UNFAMILIAR)))
    if not max(np.abs(weights).max(), spoken, abs(offset)) <= LARGEST:
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


def _left_out(known: Known, val: Looked, drawn: Mapping[str, Looked]) -> dict[str, float]:
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


def _prediction(pooled: Pooled, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of the pooled channels that predict a value of each photo, by ridge regression."""
    middle, spread = pooled.mean(axis=0), pooled.std(axis=0)
    spread[spread == 0] = np.inf  # a channel without spread has no weight
    scaled = (pooled - middle) / spread
    penalty = SHRUNK * len(pooled) * np.eye(scaled.shape[1])
    return np.asarray(np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (values - values.mean())) / spread)


def _of_split(sets: Sequence[tuple[Path, Sequence[CaptionedPhoto]]], split: str) -> list[tuple[Path, str]]:
    """Return the photos of a split, each with its data folder."""
    return [(folder, photo.name) for folder, photos in sets for photo in photos if photo.split == split]


def _squares(photos: Iterable[tuple[Path, str]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield photos (size, size, 3) of data folders, folder by folder."""
    for folder, group in groupby(photos, key=itemgetter(0)):
        names = [name for _, name in group]
        with open_photos(folder) as store:
            store.require(names)
            yield from (read_photo(store.read(name), size, name) for name in names)


def _pooled(captioner: Captioner, photos: Iterable[tuple[Path, str]], size: int) -> Pooled:
    count = pooled_count(captioner.bundle)
    return np.array([captioner.pooled(photo, count) for photo in _squares(photos, size)])


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") + 0.0  # no negative zero
