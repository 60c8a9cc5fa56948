"""Photos with captions, read from every layout in `capprune.data.layouts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capprune.data.folder import FolderContents, read_folder
from capprune.data.layouts import FoundPhoto, FoundSet, Layout, read_layout
from capprune.data.left_out import LeftOut, LeftOutBook
from capprune.data.split_shares import DEFAULT_SHARES, split_by_shares, take_val
from capprune.data.words import words as words
from capprune_runtime.errors import DataError, UsageError

WITHOUT_CAPTIONS: Final = "photos without captions"


@dataclass(frozen=True)
class CaptionedPhoto:
    """One photo with its captions.

    Attributes:
        name: Path of the photo inside its data set, with `/`.
        split: "train", "val", "test" or another name of the data set.
        captions: At least one, as written in the data set.
        confidence: Confidence of the captions, in the unit of the data set; None if the data set has none.
        objects: Names of the objects in the photo; empty if they are not known.
    """

    name: str
    split: str
    captions: tuple[str, ...]
    confidence: float | None = None
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaptionSet:
    """All captioned photos of a data set.

    Attributes:
        name: The data set's name for itself.
        photos: In the order of its file.
        layout: Name of the layout that was read.
        files: The captions files and split lists that were read, as paths in the folder.
        left_out: Photos and captions that were not used, by reason.
        labelled_by: The model that generated the captions, with its licence; None if people wrote them.
        splits_made: Whether the splits were made by hashes of names, because the data set has none.
    """

    name: str
    photos: tuple[CaptionedPhoto, ...]
    layout: str = ""
    files: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    splits_made: bool = False
    labelled_by: str | None = None

    @property
    def splits(self) -> dict[str, int]:
        """The number of photos in each split, in order of appearance."""
        sizes: dict[str, int] = {}
        for photo in self.photos:
            sizes[photo.split] = sizes.get(photo.split, 0) + 1
        return sizes

    def split(self, split: str) -> tuple[CaptionedPhoto, ...]:
        """Return the photos of one split.

        Raises:
            DataError: There are none; the message names the existing splits.
        """
        chosen = tuple(photo for photo in self.photos if photo.split == split)
        if not chosen:
            sizes = ", ".join(f"{name} ({size:,} photos)" for name, size in self.splits.items())
            raise DataError(
                f"the split '{split}' is empty",
                where=self.name,
                expected="at least one photo",
                found=sizes,
                hint="capprune data import FOLDER --out NEW --shares 80,10,10 makes new splits train, val and test",
            )
        return chosen

    def notes(self) -> tuple[str, ...]:
        """Return lines for the user about data that was left out or made."""
        lines = [f"note: {entry}" for entry in self.left_out]
        if self.splits_made:
            sizes = ", ".join(f"{size:,} {name}" for name, size in self.splits.items())
            lines.append(f"{self.name} has no splits: made by hashes of the photos' names, {sizes}")
        return tuple(lines)


def load_caption_set(folder: Path, layout: str | None = None) -> CaptionSet:
    """Read the captions of a data set.

    The table `capprune.data.layouts.LAYOUTS` lists the supported layouts; docs/data.md describes each one.

    Args:
        folder: The folder given as `--data`.
        layout: Name of the layout to read; None to detect it.

    Returns:
        All photos in the order of the file. Captions without any word and photos without captions are left out and
        counted in `left_out`. A data set without splits gets some by hashes of its photos' names.

    Raises:
        UsageError: There is no such folder, its layout is unknown, or it holds several data sets.
        DataError: A captions file is broken, no photo has captions, or two photos have one name.
        MissingExtra: The layout needs a package that is not installed.
    """
    contents = read_folder(folder)
    known, found = read_layout(contents, layout)
    inside = next((photo for photo in found.photos if photo.content is not None), None)
    if inside is not None:
        raise UsageError(
            "the photos of this data set lie inside its captions files",
            where=inside.where,
            hint=f"capprune data import {folder} --out {folder.resolve().name}-photos writes them as files",
        )
    return caption_set(contents, known, found)


def caption_set(
    contents: FolderContents,
    layout: Layout,
    found: FoundSet,
    shares: Sequence[float] | None = None,
    val_share: float | None = None,
) -> CaptionSet:
    """Return the captioned photos from the result of a layout's reader; see `load_caption_set`.

    Args:
        contents: The files of the data folder.
        layout: The layout that was read.
        found: Result of its reader.
        shares: Shares of train, val and test for new splits; None keeps the splits of the data set.
        val_share: Share of the training photos that become val; the other splits are unchanged.

    Raises:
        DataError: No photo has captions, or two photos have one name.
        UsageError: `val_share` is given, but the data set already has a val split or fewer than two training photos.
    """
    book = LeftOutBook()
    book.add_all(found.left_out)
    book.add_all(contents.found_otherwise.entries())
    used = [photo for photo in found.photos if _used(photo, book)]
    _check_names(found, used, contents.folder)
    made = shares is not None or all(photo.split is None for photo in used)
    splits = split_by_shares([photo.name for photo in used], shares or DEFAULT_SHARES) if made else {}
    if val_share is not None:
        splits = _val_of_train(used, val_share, found)
    photos = tuple(
        CaptionedPhoto(
            photo.name,
            splits.get(photo.name) or photo.split or "no split",
            _spoken(photo),
            photo.confidence,
            photo.objects,
        )
        for photo in used
    )
    return CaptionSet(found.name, photos, layout.name, found.files, book.entries(), made, found.labelled_by)


def _val_of_train(used: Sequence[FoundPhoto], share: float, found: FoundSet) -> dict[str, str]:
    sizes = Counter(photo.split or "no split" for photo in used)
    if sizes["val"] or sizes["train"] < 2:
        raise UsageError(
            "val cannot be taken from the training photos",
            where="--val",
            expected="a data set with training photos and without a split val",
            found=", ".join(f"{size:,} {split}" for split, size in sizes.items()),
            hint="--shares 80,10,10 makes new splits",
        )
    return take_val([photo.name for photo in used if photo.split == "train"], share)


def _used(photo: FoundPhoto, book: LeftOutBook) -> bool:
    """Return whether a photo has captions. Everything that is left out is recorded."""
    spoken = sum(bool(words(caption)) for caption in photo.captions)
    if not spoken:
        book.add(WITHOUT_CAPTIONS, photo.name)
    elif spoken < len(photo.captions):
        book.add("captions without a word", *[photo.name] * (len(photo.captions) - spoken))
    return spoken > 0


def _spoken(photo: FoundPhoto) -> tuple[str, ...]:
    return tuple(" ".join(caption.split()) for caption in photo.captions if words(caption))


def _check_names(found: FoundSet, used: Sequence[FoundPhoto], folder: Path) -> None:
    if not used:
        listed = len(found.photos)
        raise DataError(
            "a data set without photos",
            where=folder,
            expected="at least one photo with captions of words of letters or digits",
            found=f"{listed:,} photos, none with such captions" if listed else "none",
        )
    twice = [name for name, times in Counter(photo.name for photo in used).items() if times > 1]
    if twice:
        where = " and ".join(photo.where for photo in used if photo.name == twice[0])
        raise DataError(
            "two photos have one name",
            where=folder,
            found=f"{len(twice):,} such names, the first {twice[0]} ({where})",
        )
