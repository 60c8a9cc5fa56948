"""Assigns photos to shards before the first is written, in the same way on every machine."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from capprune.data.captions import CaptionedPhoto, CaptionSet
from capprune.data.photos import PhotoPlace, PhotoStore
from capprune.data.shards.index import IndexedShard
from capprune.data.shards.place import ShardPlace
from capprune.data.shards.reader import ShardPhotos
from capprune_runtime.errors import DataError, PhotoError, UsageError

SHUFFLED: Final = "train"  # the split whose photos are distributed over its shards by the hashes of their names


@dataclass(frozen=True)
class PlannedPhoto:
    """A photo of a planned shard.

    Attributes:
        name: Name in the data set.
        captions: Its captions.
        place: Location of its bytes.
    """

    name: str
    captions: tuple[str, ...]
    place: PhotoPlace


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be made from photos of a data folder, or from another shard.

    Attributes:
        name: Name of its files, without an ending.
        split: Split of its photos.
        photos: In order; empty if they come from `source`.
        source: A folder or URL of shards, and the shard that this one is made from.
    """

    name: str
    split: str
    photos: tuple[PlannedPhoto, ...] = ()
    source: tuple[str, IndexedShard] | None = None

    @property
    def size(self) -> int:
        """Number of photos."""
        return len(self.photos) if self.source is None else self.source[1].photos

    def contents(self, cache: Path) -> Generator[tuple[str, tuple[str, ...], Callable[[], bytes]], None, None]:
        """Yield name, captions, and a function that reads the bytes, for every photo in order.

        Raises:
            DataError: The source shard is missing or altered.
        """
        if self.source is None:
            yield from ((photo.name, photo.captions, functools.partial(_read, photo)) for photo in self.photos)
            return
        url, shard = self.source
        place = ShardPlace(url, cache, open_shards=1)
        try:
            photos = ShardPhotos(place, [shard])
            for number in range(len(photos)):
                row = photos.row(number)
                yield row.name, row.captions, functools.partial(photos.content, number)
        finally:
            place.close()


@dataclass(frozen=True)
class ShardPlan:
    """All shards to be made.

    Attributes:
        name: The data set's name for itself.
        shards: In order.
        labelled_by: The model that generated the captions.
        sha256: Hash of names, captions and settings; not of locations.
        source: Hash of the photos' locations, sizes and times, to check that a continued command reads the same photos.
    """

    name: str
    shards: tuple[PlannedShard, ...]
    labelled_by: str | None
    sha256: str
    source: str

    @property
    def photos(self) -> int:
        """Number of photos."""
        return sum(shard.size for shard in self.shards)


def plan_of_folder(
    captions: CaptionSet, store: PhotoStore, *, photos_per_shard: int, splits: Sequence[str] | None, skip_missing: bool
) -> tuple[ShardPlan, tuple[str, ...]]:
    """Plan the shards of a data folder.

    Args:
        captions: Captions of the folder.
        store: Its photos.
        photos_per_shard: Maximum number of photos per shard.
        splits: Splits to write; None for all.
        skip_missing: Whether missing photos are left out instead of raising an error.

    Returns:
        The plan, and the names of the missing photos.

    Raises:
        UsageError: There is no such split.
        DataError: A photo is missing.
    """
    found = list(captions.splits)
    if unknown := [split for split in splits or () if split not in found]:
        raise UsageError("there is no such split", where="--splits", expected=", ".join(found), found=unknown[0])
    chosen = [photo for photo in captions.photos if splits is None or photo.split in splits]
    names = [photo.name for photo in chosen]
    missing: tuple[str, ...] = ()
    if skip_missing:
        missing = store.missing(names)
        chosen = [photo for photo in chosen if photo.name not in set(missing)]
    else:
        store.require(names)
    shards = []
    for split in splits or found:
        own = _in_order([photo for photo in chosen if photo.split == split])
        for number, first in enumerate(range(0, len(own), photos_per_shard)):
            some = own[first : first + photos_per_shard]
            planned = tuple(PlannedPhoto(one.name, one.captions, store.place(one.name)) for one in some)
            shards.append(PlannedShard(f"{_file_name(split)}-{number:06}", split, planned))
    if len({shard.name for shard in shards}) < len(shards):
        raise DataError("two splits have names that give the same file names", where=captions.name, found=found)
    sha256 = _sha256([photos_per_shard, [[s.name, [[p.name, *p.captions] for p in s.photos]] for s in shards]])
    source = store.fingerprint(photo.name for shard in shards for photo in shard.photos)
    return ShardPlan(captions.name, tuple(shards), captions.labelled_by, sha256, source), missing


def plan_of_shards(place: ShardPlace, splits: Sequence[str] | None) -> ShardPlan:
    """Plan one shard for each shard of another folder.

    Raises:
        UsageError: There is no such split, or the shards already hold features.
    """
    index = place.index
    if index.content != "photos":
        raise UsageError("these shards hold features already", where=place.place, expected="shards of photos")
    if unknown := [split for split in splits or () if split not in index.splits]:
        raise UsageError("there is no such split", where="--splits", expected=", ".join(index.splits), found=unknown[0])
    chosen = [shard for shard in index.shards if splits is None or shard.split in splits]
    shards = tuple(PlannedShard(shard.name, shard.split, (), (place.place, shard)) for shard in chosen)
    sha256 = _sha256([[shard.name, shard.sha256, shard.rows_sha256] for shard in chosen])
    return ShardPlan(index.name, shards, index.labelled_by, sha256, sha256)


def _read(photo: PlannedPhoto) -> bytes:
    where = f"{photo.place.path}, photo {photo.name}"
    try:
        content = photo.place.read()
    except OSError as error:
        raise PhotoError("a photo cannot be read", where=where, found=error.strerror) from error
    if len(content) != photo.place.size_bytes:
        raise PhotoError("a photo has changed while it was read", where=where)
    return content


def _in_order(photos: Sequence[CaptionedPhoto]) -> list[CaptionedPhoto]:
    """Sort training photos by the hash of their names, so that every shard is a sample of all; others are unchanged."""
    if not photos or photos[0].split != SHUFFLED:
        return list(photos)
    return sorted(photos, key=lambda photo: hashlib.sha256(photo.name.encode("utf-8", "surrogateescape")).digest())


def _file_name(split: str) -> str:
    """Return a split's name as part of a file's name."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "_" for letter in split)
    return plain.lstrip("_-")[:64] or "split"


def _sha256(tree: object) -> str:
    return hashlib.sha256(json.dumps(tree, ensure_ascii=True).encode()).hexdigest()


def ending_of(name: str) -> str:
    """Return the ending of a photo's name in lower case, without its dot."""
    return PurePosixPath(name).suffix.lower().removeprefix(".") or "jpg"
