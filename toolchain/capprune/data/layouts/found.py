"""Result of a layout's reader: photos with their captions as written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from capprune.data.folder import FolderContents
from capprune.data.left_out import LeftOut
from capprune_runtime.errors import DataError


@dataclass(frozen=True)
class FoundPhoto:
    """One photo of a data set.

    Attributes:
        name: Path of the photo in the data folder or in a tar file.
        split: "train", "val", "test" or another name; None if the data set has no splits.
        captions: As written; may be empty.
        where: File and entry, for messages.
        content: Reads the photo if it is stored inside a captions file (parquet); None for a file or tar member.
        confidence: Confidence of its captions, in the unit of the data set; None if the data set has none.
        objects: Names of the objects in it; empty if they are not known.
    """

    name: str
    split: str | None
    captions: tuple[str, ...]
    where: str
    content: Callable[[], bytes] | None = field(default=None, repr=False)
    confidence: float | None = None
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundSet:
    """A data set as read by its layout's reader.

    Attributes:
        name: The data set's name for itself, or the folder's name.
        photos: In the order of the captions file.
        files: Every file that was read for captions or splits.
        left_out: Entries that the reader did not use.
        labelled_by: The model that generated the captions, with its licence; None if people wrote them.
    """

    name: str
    photos: tuple[FoundPhoto, ...]
    files: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    labelled_by: str | None = None


@dataclass(frozen=True)
class Layout:
    """One layout of photos and captions.

    Attributes:
        name: Value of `--layout`.
        title: Name in messages.
        shape: Description of its files.
        claims: Returns the captions files of this layout in a folder; empty if the folder has another layout.
        read: Reads them.
        weak: Whether layouts with unambiguous captions files take precedence.
    """

    name: str
    title: str
    shape: str
    claims: Callable[[FolderContents], tuple[str, ...]]
    read: Callable[[FolderContents, tuple[str, ...]], FoundSet]
    weak: bool = False


class Grouped:
    """Collects captions line by line; lines of one photo need not be adjacent."""

    def __init__(self) -> None:
        self._captions: dict[str, list[str]] = {}
        self._splits: dict[str, str | None] = {}
        self._where: dict[str, str] = {}

    def add(self, name: str, captions: Iterable[str], split: str | None, where: str) -> None:
        """Add captions of a photo.

        Raises:
            DataError: The photo was in another split before.
        """
        if self._splits.setdefault(name, split) != split:
            raise DataError(
                "a photo is in two splits",
                where=f"{where} ({name})",
                found=f"{self._splits[name] or 'no split'} at {self._where[name]}, {split or 'no split'} here",
            )
        self._where.setdefault(name, where)
        self._captions.setdefault(name, []).extend(captions)

    def photos(self) -> tuple[FoundPhoto, ...]:
        """Return the photos in order of first appearance."""
        return tuple(
            FoundPhoto(name, self._splits[name], tuple(captions), self._where[name])
            for name, captions in self._captions.items()
        )


def set_name(contents: FolderContents) -> str:
    """Return the name of a data set that does not name itself: the folder's name."""
    return contents.folder.resolve().name


def at_least_depth(names: Iterable[str]) -> tuple[str, ...]:
    """Return the files with the smallest depth; deeper ones are copies or parts."""
    listed = tuple(names)
    least = min((name.count("/") for name in listed), default=0)
    return tuple(name for name in listed if name.count("/") == least)
