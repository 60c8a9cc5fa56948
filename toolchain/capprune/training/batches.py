"""Batches of whole photos.

The captions of a photo share one encoder pass. Photos with captions of similar length share a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from capprune.training.launch import Place
from capprune_runtime.bundle.vocabulary import END, START

IGNORED = -1  # target after the end of a caption
BUCKET_NOISE = 1.0  # words; random offset of a photo's length, so that batches differ between epochs


@dataclass(frozen=True)
class Batch:
    """Some photos and n captions of each.

    Attributes:
        photos: `(P,)` indices into the split.
        inputs: `(P * n, T)` ids, starting with `<start>`. The captions of a photo are adjacent.
        targets: `(P * n, T)` ids, ending with `<end>` and padded with `IGNORED`.
    """

    photos: npt.NDArray[np.int64]
    inputs: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


class BatchSource(Protocol):
    """Source of the batches of every epoch.

    Attributes:
        captions_per_photo: n of every batch.
    """

    captions_per_photo: int

    def __len__(self) -> int:
        """Number of batches in an epoch."""

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting at index `first`."""


class Batches:
    """The batches of every epoch, the same for the same seed.

    Args:
        captions: The captions of every photo as ids, without `<start>` and `<end>`.
        photos_per_batch: P; the last batch may be smaller.
        seed: Seed of the order, and of the choice of captions where photos have unequal numbers of them.
        weights: Mean number of uses of every photo in an epoch; once each if left out. Their sum, rounded, is the number
            of photos in an epoch. A photo of weight w is used floor(w) or ceil(w) times (systematic sampling).
    """

    def __init__(
        self,
        captions: Sequence[Sequence[tuple[int, ...]]],
        *,
        photos_per_batch: int,
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        self._captions, self._size, self._seed = captions, photos_per_batch, seed
        self._weights = None if weights is None else np.asarray(weights, np.float64)
        self._uses = len(captions) if self._weights is None else max(1, round(float(self._weights.sum())))
        self.captions_per_photo = Counter(map(len, captions)).most_common(1)[0][0]
        self._longest = np.array([max(map(len, own)) for own in captions], dtype=np.float64)

    def __len__(self) -> int:
        return -(-self._uses // self._size)

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, starting at index `first`."""
        random = np.random.default_rng([self._seed, number])
        photos = self._drawn(random)
        keys = self._longest[photos] + random.uniform(-BUCKET_NOISE, BUCKET_NOISE, len(photos))
        buckets = np.array_split(photos[np.argsort(keys)], np.arange(self._size, len(keys), self._size))
        order = random.permutation(len(buckets))
        seeds = random.integers(1 << 62, size=len(buckets))
        for place in order[first:]:
            yield self._batch(buckets[place], np.random.default_rng(seeds[place]))

    def _drawn(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return the photos of an epoch: all of them, or a systematic sample by their weights in a random order."""
        count = len(self._captions)
        if self._weights is None:
            return np.arange(count)
        shuffled = random.permutation(count)
        ends = np.cumsum(self._weights[shuffled])
        places = (np.arange(self._uses) + random.random()) * (ends[-1] / self._uses)
        drawn: npt.NDArray[np.int64] = shuffled[np.minimum(np.searchsorted(ends, places, side="right"), count - 1)]
        return drawn

    def _batch(self, photos: npt.NDArray[np.int64], random: np.random.Generator) -> Batch:
        chosen = [caption for photo in photos for caption in self._choose(self._captions[photo], random)]
        return Batch(photos, *padded(chosen))

    def _choose(self, own: Sequence[tuple[int, ...]], random: np.random.Generator) -> Sequence[tuple[int, ...]]:
        wanted = self.captions_per_photo
        if len(own) == wanted:
            return own
        picks = random.choice(len(own), wanted, replace=len(own) < wanted)
        return [own[pick] for pick in picks]


def parts_of(batch: Batch, count: int) -> list[Batch | None]:
    """Split a batch into parts of whole photos, as equal as possible; None for parts without a photo."""
    if count == 1:
        return [batch]
    own = len(batch.inputs) // len(batch.photos)
    found: list[Batch | None] = []
    for places in _places_of_parts(len(batch.photos), count):
        if not len(places):
            found.append(None)
            continue
        rows = slice(places[0] * own, (places[-1] + 1) * own)
        length = int((batch.targets[rows] >= 0).sum(1).max())
        found.append(Batch(batch.photos[places], batch.inputs[rows, :length], batch.targets[rows, :length]))
    return found


def share_of(photos: npt.NDArray[np.int64], place: Place, parts: int) -> npt.NDArray[np.int64]:
    """Return the photos of a batch that one process computes, in `parts` parts; see `parts_of`."""
    found = _places_of_parts(len(photos), parts * place.world)[place.rank * parts : (place.rank + 1) * parts]
    return photos[np.concatenate(found)]


def _places_of_parts(photos: int, count: int) -> list[npt.NDArray[np.int64]]:
    return np.array_split(np.arange(photos), count)


def with_captions(batch: Batch, more: Sequence[tuple[int, ...]]) -> Batch:
    """Return the batch with one more caption for each photo."""
    spoken = (batch.targets >= 0).sum(1) - 1  # `<end>` is counted too
    known = [tuple(row[:length].tolist()) for row, length in zip(batch.targets, spoken, strict=True)]
    count = len(known) // len(batch.photos)
    chosen = [
        caption
        for place, extra in enumerate(more)
        for caption in (*known[place * count : (place + 1) * count], tuple(extra))
    ]
    return Batch(batch.photos, *padded(chosen))


def padded(captions: Sequence[tuple[int, ...]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the inputs and targets `(P * n, T)` of a batch; see `Batch`."""
    length = max(map(len, captions)) + 1
    inputs = np.full((len(captions), length), END, dtype=np.int64)
    targets = np.full((len(captions), length), IGNORED, dtype=np.int64)
    inputs[:, 0] = START
    for row, caption in enumerate(captions):
        inputs[row, 1 : len(caption) + 1] = caption
        targets[row, : len(caption) + 1] = (*caption, END)
    return inputs, targets
