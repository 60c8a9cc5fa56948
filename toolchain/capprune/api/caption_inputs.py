"""Inputs of `capprune caption`: photos, folders, standard input and shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from capprune.training.progress import SILENT, Progress

if TYPE_CHECKING:
    from capprune.data.shards.reader import ShardPhotos
    from capprune_runtime.errors import CapPruneError

SHARDS_INDEX = "shards.json"  # in a folder of shards


@dataclass(frozen=True)
class InShards:
    """A photo in shards.

    Attributes:
        place: Folder or URL of the shards.
        split: Split of the photo.
        number: Number of the photo in its split.
        sha256: SHA-256 of the photo's bytes.
    """

    place: str
    split: str
    number: int
    sha256: str

    @property
    def identity(self) -> tuple[str, str]:
        """Key of the photo in the journal."""
        return "shards", self.sha256


@dataclass(frozen=True)
class Named:
    """A photo to caption, or the error of an argument that names no photo.

    Attributes:
        path: The given path, or the path in a given folder; for shards, their folder and the photo's name.
        problem: Why it cannot be read.
        inside: Position in shards.
    """

    path: Path
    problem: CapPruneError | None = None
    inside: InShards | None = None

    @property
    def identity(self) -> tuple[str, str] | None:
        """Key of a photo in shards in the journal; None for files, which the journal identifies by path, size and time."""
        return None if self.inside is None else self.inside.identity


def named_photos(
    places: Sequence[Path], endings: frozenset[str], cache: Path, progress: Progress = SILENT
) -> list[Named]:
    """Return the photos that the arguments name. An invalid argument does not stop the others.

    Raises:
        CapPruneError: The only argument names no photo.
    """
    from capprune_runtime.errors import DataError
    from capprune_runtime.photo_argument import argument_problem
    from capprune_runtime.photo_folder import find_photos

    named: list[Named] = []
    for place in places:
        problem: CapPruneError | None = argument_problem(place)
        if problem is None and place.is_dir():
            try:
                if (place / SHARDS_INDEX).is_file():
                    named += _in_shards(place, cache)
                    continue
                found = find_photos(place, endings)
                named += [Named(path) for path in found.photos]
                if (left_out := found.left_out_text()) is not None:
                    progress.say(f"{place}: {left_out}")
                continue
            except DataError as error:
                problem = error
        named.append(Named(place, problem))
    if len(named) == 1 and named[0].problem is not None:
        raise named[0].problem
    return named


def content_of(one: Named, cache: Path) -> bytes | None:
    """Return the bytes of a photo in shards; None for a file.

    Raises:
        DataError: The shard is missing or altered.
    """
    if one.inside is None:
        return None
    return _opened(one.inside.place, one.inside.split, cache).content(one.inside.number)


@lru_cache(maxsize=16)
def _opened(place: str, split: str, cache: Path) -> ShardPhotos:
    from capprune.data.shards.place import ShardPlace
    from capprune.data.shards.reader import ShardPhotos

    opened = ShardPlace(place, cache)
    return ShardPhotos(opened, opened.index.of_split(split))


def _in_shards(folder: Path, cache: Path) -> list[Named]:
    from capprune.data.shards.place import ShardPlace
    from capprune.data.shards.reader import ShardPhotos
    from capprune_runtime.errors import UsageError

    place = ShardPlace(str(folder.resolve()), cache)
    if place.index.content != "photos":
        raise UsageError("these shards hold features, not photos", where=folder, hint="give the shards with the photos")
    named = []
    for split in place.index.splits:
        for number, row in enumerate(ShardPhotos(place, place.index.of_split(split)).all_rows()):
            named.append(Named(folder / split / row.name, None, InShards(place.place, split, number, row.sha256)))
    return named
