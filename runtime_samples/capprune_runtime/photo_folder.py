"""The photos of a folder: which files count, and how many of the others were left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from capprune_runtime.errors import DataError
from capprune_runtime.photo import ENDINGS

EXPLANATION = "capprune caption --explain"  # the "Software" of the pictures that it draws
MARKED_WITHIN = 512  # bytes of a PNG in which the mark stands, before the pixels
APPLE_DOUBLE = "._"  # starts the name of a file in which macOS keeps the metadata of another


@dataclass(frozen=True)
class PhotoFolder:
    """What lies in a folder, at any depth.

    Attributes:
        photos: The files that count as photos, sorted by path.
        left_out: How many other files there are, by their kind.
        unreadable: Folders whose content cannot be listed.
    """

    photos: tuple[Path, ...]
    left_out: Mapping[str, int]
    unreadable: tuple[str, ...] = ()

    def left_out_text(self) -> str | None:
        """What was left out, as a line for people; None where that is nothing."""
        kinds = [f"{count:,} {kind}" for kind, count in sorted(self.left_out.items())]
        kinds += [f"folder {name}, which cannot be read" for name in self.unreadable]
        return f"left out: {', '.join(kinds)}" if kinds else None


def find_photos(folder: Path, endings: frozenset[str] = ENDINGS) -> PhotoFolder:
    """Find the photos of a folder and of the folders in it. Linked folders are followed, each once.

    Files of macOS that only look like photos (`._photo.jpg`) are left out, and pictures of `capprune caption --explain`.

    Args:
        folder: The folder.
        endings: Of the files that count, in lower case.

    Raises:
        DataError: There is no photo.
    """
    photos: list[Path] = []
    others: Counter[str] = Counter()
    unreadable: list[str] = []
    for path in _files(folder, unreadable):
        kind = _other_kind(path, endings)
        if kind is None:
            photos.append(path)
        else:
            others[kind] += 1
    found = PhotoFolder(tuple(sorted(photos)), dict(others), tuple(sorted(unreadable)))
    if not photos:
        raise DataError(
            "there are no photos in this folder",
            where=folder,
            expected="files ending in " + ", ".join(sorted(endings)),
            found=found.left_out_text() or "an empty folder",
        )
    return found


def _other_kind(path: Path, endings: frozenset[str]) -> str | None:
    """The kind of a file that is no photo; None for a photo."""
    if path.name.startswith(APPLE_DOUBLE):
        return "AppleDouble (._*)"
    if path.suffix.lower() not in endings:
        return path.suffix.lower() or (path.name if path.name.startswith(".") else "without ending")
    if not path.is_file():
        return f"{path.suffix.lower()} that is no plain file"
    return "drawn by --explain" if path.suffix.lower() == ".png" and _is_explanation(path) else None


def _is_explanation(path: Path) -> bool:
    """Whether a PNG was drawn by `capprune caption --explain`, and so is no photo."""
    try:
        with path.open("rb") as file:
            return f"Software\0{EXPLANATION}".encode() in file.read(MARKED_WITHIN)
    except OSError:  # reading the photo names what is wrong
        return False


def _files(folder: Path, unreadable: list[str]) -> Iterator[Path]:
    seen = set()
    for current, folders, files in os.walk(
        folder, followlinks=True, onerror=lambda error: unreadable.append(str(error.filename))
    ):
        status = Path(current).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (Path(current, name) for name in files)
