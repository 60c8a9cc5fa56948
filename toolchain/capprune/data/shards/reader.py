"""Reads photos of shards by number: captions and bytes, with checks of their hashes."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from capprune.data.shards.index import TAR, IndexedShard, Row, parse_rows
from capprune.data.shards.place import ShardPlace
from capprune_runtime.errors import PhotoError

OPEN_ROWS: Final = 16  # shards whose rows are kept in memory


class ShardPhotos:
    """The photos of some shards, numbered from 0 in the order of these.

    Args:
        place: Location of the shards.
        shards: The shards to read.
        limit: Use only the first photos; None for all.

    Attributes:
        shards: The shards that hold at least one of the photos.
        sizes: Number of used photos in each.

    Raises:
        DataError: A local shard is missing or truncated.
    """

    def __init__(self, place: ShardPlace, shards: Sequence[IndexedShard], limit: int | None = None) -> None:
        self.place = place
        chosen, sizes, left = list[IndexedShard](), list[int](), limit
        for shard in shards:
            size = shard.photos if left is None else min(shard.photos, left)
            if size:
                chosen.append(shard)
                sizes.append(size)
            left = None if left is None else left - size
        place.check(chosen)
        self.shards, self.sizes = tuple(chosen), tuple(sizes)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._open_rows = OPEN_ROWS
        self._rows: OrderedDict[int, tuple[Row, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def folder(self) -> Path:
        """Name of the data for messages."""
        return Path(self.place.place)

    def captions_per_photo(self) -> int:
        """Return the most frequent number of captions of a photo."""
        counts: Counter[int] = Counter()
        for shard in self.shards:
            counts.update({int(number): photos for number, photos in shard.captions.items()})
        return counts.most_common(1)[0][0]

    def shards_of(self, photos: int) -> int:
        """Return the number of shards that is always enough for a given number of photos."""
        sizes = np.cumsum(sorted(self.sizes))
        return min(int(np.searchsorted(sizes, photos)) + 1, len(sizes))

    def keep_open(self, shards: int) -> None:
        """Keep at least this many shards open, and their rows in memory."""
        self._open_rows = max(self._open_rows, shards)
        self.place.keep_open(shards)

    def first_of(self, shard: int) -> int:
        """Return the number of the first photo of a shard."""
        return int(self._starts[shard])

    def rows(self, shard: int) -> tuple[Row, ...]:
        """Return the rows of a shard; those of the last few are kept in memory.

        Raises:
            DataError: They are missing or altered.
        """
        with self._lock:
            if shard in self._rows:
                self._rows.move_to_end(shard)
                return self._rows[shard]
        one = self.shards[shard]
        rows = parse_rows(self.place.rows_of(one), one, self.place.where(one.name))[: self.sizes[shard]]
        with self._lock:
            self._rows[shard] = rows
            while len(self._rows) > self._open_rows:
                self._rows.popitem(last=False)
        return rows

    def row(self, photo: int) -> Row:
        """Return the row of a photo."""
        shard = self.shard_of(photo)
        return self.rows(shard)[photo - int(self._starts[shard])]

    def shard_of(self, photo: int) -> int:
        """Return the number of the shard that holds a photo."""
        return int(np.searchsorted(self._starts, photo, side="right")) - 1

    def content(self, photo: int) -> bytes:
        """Return the bytes of a photo, or of the file of its features.

        Raises:
            DataError: The shard is missing or truncated; the message names it.
            PhotoError: The photo's bytes have been altered.
        """
        row, shard = self.row(photo), self.shards[self.shard_of(photo)]
        content = self.place.part(shard, row.offset, row.size_bytes)
        if hashlib.sha256(content).hexdigest() != row.sha256:
            raise PhotoError(
                "a shard is cut off or has been altered",
                where=f"{self.place.where(shard.name + TAR)}, photo {row.name}",
                expected=f"SHA-256 {row.sha256[:16]}…",
                found="other bytes",
                hint="copy it again; or remove it, and run the command that made the shards again",
            )
        return content

    def all_rows(self) -> Iterator[Row]:
        """Yield the rows of all photos in order; the rows of one shard at a time are in memory."""
        for shard in range(len(self.shards)):
            yield from self.rows(shard)


class ShardTexts(Sequence[str]):
    """All captions of a split, read on access; meant for repeated sequential reads."""

    def __init__(self, split: ShardPhotos) -> None:
        self._split = split
        self._count = sum(len(row.captions) for row in split.all_rows())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return (text for row in self._split.all_rows() for text in row.captions)

    def __getitem__(self, place: int | slice) -> str:
        raise TypeError("captions in shards are read in order")


class SomePhotos:
    """Photos of shards by name, for the feature cache.

    Photos of the same name are distinguished by their number.
    """

    def __init__(self, split: ShardPhotos) -> None:
        self._split, self.folder = split, split.folder
        self._numbers: dict[str, int] = {}
        for number, row in enumerate(split.all_rows()):
            name = row.name
            self._numbers[name if name not in self._numbers else f"{name} ({number})"] = number

    def names(self) -> tuple[str, ...]:
        """Return the names of the photos, in order."""
        return tuple(self._numbers)

    def require(self, names: Sequence[str]) -> None:
        """Do nothing: all photos of a shard exist."""

    def fingerprint(self, names: Sequence[str]) -> str:
        """Return a SHA-256 over the content of photos, in order."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(f"{name}\n{self._split.row(self._numbers[name]).sha256}\n".encode())
        return digest.hexdigest()

    def read(self, name: str) -> bytes:
        """Return the bytes of a photo."""
        return self._split.content(self._numbers[name])

    def captions(self, name: str) -> tuple[str, ...]:
        """Return the captions of a photo."""
        return self._split.row(self._numbers[name]).captions
