"""Writes a data set of any layout as Karpathy's JSON and a folder of photos, with splits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from capprune.data.captions import CaptionedPhoto, CaptionSet, caption_set, words
from capprune.data.decoding import look_at_all
from capprune.data.folder import read_folder
from capprune.data.layouts import FoundSet, read_layout
from capprune.data.layouts.parquet import photo_ending
from capprune.data.left_out import LeftOut, LeftOutBook, first_names
from capprune.data.photos import PhotoStore, open_photos
from capprune_runtime.atomic import atomic_folder
from capprune_runtime.errors import DataError, PhotoError, UsageError
from capprune_runtime.photo import decode_photo

PHOTOS: Final = "photos"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportSettings:
    """Options for writing a data set.

    Attributes:
        layout: Name of the layout to read; None to detect it.
        shares: Shares of train, val and test for new splits; None keeps the existing splits.
        drop_broken: Leave out photos that are missing or cannot be decoded, instead of raising an error.
        link: Link to photo files instead of copying them; members of tar files are always copied.
        val_share: Share of the training photos that become val, in a data set without val; other splits are unchanged.
    """

    layout: str | None = None
    shares: Sequence[float] | None = None
    drop_broken: bool = False
    link: bool = False
    val_share: float | None = None


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        captions: The data set as read, without the photos that were left out.
        left_out: What was left out or renamed, by reason.
    """

    captions: CaptionSet
    left_out: tuple[LeftOut, ...]


def import_data(
    folder: Path, out: Path, settings: ImportSettings, *, cache: Path, progress: Progress | None = None
) -> Imported:
    """Convert a data set; the output folder appears when it is complete.

    Args:
        folder: Folder to read.
        out: Folder to be made, with `dataset_<name>.json` and `photos/`.
        settings: Options of the import.
        cache: Folder of all caches, for the check of the photos.
        progress: Called with the number of written photos and of all photos.

    Raises:
        UsageError: `out` already exists, or the layout is unknown.
        DataError: Captions or photos are broken.
        MissingExtra: The layout needs a package that is not installed.
    """
    contents = read_folder(folder)
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            "the new data set would be inside the old one, which would then hold two",
            where=out,
            hint="choose an --out outside the data folder",
        )
    with atomic_folder(out) as unfinished:
        layout, found = read_layout(contents, settings.layout)
        captions = caption_set(contents, layout, found, settings.shares, settings.val_share)
        book = LeftOutBook()
        book.add_all(captions.left_out)
        writer = _Writer(unfinished, captions, settings, book)
        if any(photo.content is not None for photo in found.photos):
            writer.write_contents(found, progress)
        else:
            with open_photos(folder) as store:
                writer.write_files(store, cache, progress)
        writer.write_captions()
    kept = replace(captions, photos=tuple(writer.kept), left_out=book.entries())
    return Imported(kept, book.entries())


class _Writer:
    """Writes photos one by one, each with a unique name."""

    def __init__(self, out: Path, captions: CaptionSet, settings: ImportSettings, book: LeftOutBook) -> None:
        self.kept: list[CaptionedPhoto] = []
        self._out, self._captions, self._settings, self._book = out, captions, settings, book
        self._names: list[str] = []
        self._taken: set[str] = set()

    def write_files(self, store: PhotoStore, cache: Path, progress: Progress | None) -> None:
        """Copy or link photos that are files or members of tar files."""
        photos = self._captions.photos
        absent = set(store.missing(photo.name for photo in photos))
        there = [photo for photo in photos if photo.name not in absent]
        looks = look_at_all(store, [photo.name for photo in there], cache=cache).by_name
        broken = {name: look.error for name, look in looks.items() if look.error is not None}
        self._leave_out("photos that do not exist", sorted(absent), store.folder)
        self._leave_out(
            "photos that cannot be decoded", [f"{name}: {why}" for name, why in broken.items()], store.folder
        )
        usable = [photo for photo in there if photo.name not in broken]
        for number, photo in enumerate(usable, 1):
            place = store.place(photo.name)
            target = self._target(photo, photo.name)
            if self._settings.link and place.offset == 0 and not photo.name.endswith(".tar"):
                target.symlink_to(place.path.resolve())
            else:
                target.write_bytes(store.read(photo.name))
            if progress is not None:
                progress(number, len(usable))

    def write_contents(self, found: FoundSet, progress: Progress | None) -> None:
        """Write photos that are stored inside captions files."""
        contents = {photo.name: photo.content for photo in found.photos}
        for number, photo in enumerate(self._captions.photos, 1):
            read = contents[photo.name]
            assert read is not None  # in a layout either all photos are inside captions files, or none
            content = read()
            try:
                decode_photo(content, photo.name)
            except PhotoError as error:
                self._leave_out("photos that cannot be decoded", [f"{photo.name}: {error.what}"], self._out)
                continue
            self._target(photo, photo.name + photo_ending(content)).write_bytes(content)
            if progress is not None:
                progress(number, len(self._captions.photos))

    def write_captions(self) -> None:
        """Write the captions of the written photos in Karpathy's layout."""
        if not self.kept:
            raise DataError("no photo is left to write", where=self._captions.name)
        entries, sentence = [], 0
        for number, (photo, name) in enumerate(zip(self.kept, self._names, strict=True)):
            entries.append(_entry(number, sentence, photo, name))
            sentence += len(photo.captions)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self._captions.name).strip("-.") or "data"
        text = json.dumps({"dataset": self._captions.name, "images": entries}, ensure_ascii=False)
        (self._out / f"dataset_{name}.json").write_text(text + "\n", encoding="utf-8")

    def _leave_out(self, what: str, names: Sequence[str], where: Path) -> None:
        if names and not self._settings.drop_broken:
            raise DataError(
                what,
                where=where,
                found=f"{len(names):,}: {first_names(names, 20)}",
                hint="leave them out with --drop-broken, or repair them; capprune data check lists all of them",
            )
        self._book.add(what, *names)

    def _target(self, photo: CaptionedPhoto, name: str) -> Path:
        """Return a path that no other photo has, ignoring case."""
        path, number = PurePosixPath(name), 1
        free = path
        while free.as_posix().casefold() in self._taken:
            number += 1
            free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        if free != path:
            self._book.add("photos renamed because names differ in capitals only", f"{name} is now {free}")
        self._taken.add(free.as_posix().casefold())
        self.kept.append(photo)
        self._names.append(free.as_posix())
        target = self._out / PHOTOS / free
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _entry(number: int, sentence: int, photo: CaptionedPhoto, name: str) -> dict[str, Any]:
    path = PurePosixPath(PHOTOS, name)
    return {
        "imgid": number,
        "filepath": path.parent.as_posix(),
        "filename": path.name,
        "split": photo.split,
        "sentids": list(range(sentence, sentence + len(photo.captions))),
        "sentences": [
            {"raw": caption, "tokens": words(caption), "imgid": number, "sentid": sentence + at}
            for at, caption in enumerate(photo.captions)
        ],
    }
