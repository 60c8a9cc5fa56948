"""Find the photos of a folder and count the files that are left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from capprune_runtime.errors import DataError
from capprune_runtime.photo import ENDINGS

EXPLANATION = "capprune caption --explain"  # the "Software" tag of the pictures that it draws
MARKED_WITHIN = 512  # first bytes of a PNG, before the pixels, in which to look for that tag
APPLE_DOUBLE = "._"  # prefix of the files in which macOS keeps metadata of other files


@dataclass(frozen=True)
class PhotoFolder:
    """The files of a folder, at any depth.

    Attributes:
        photos: The files that count as photos, sorted by path.
        left_out: Number of other files, by kind.
        unreadable: Folders that cannot be listed.
    """

    photos: tuple[Path, ...]
    left_out: Mapping[str, int]
    unreadable: tuple[str, ...] = ()

    def left_out_text(self) -> str | None:
        """Return a line for people about the files left out; None if there are none."""
        kinds = [f"{count:,} {kind}" for kind, count in sorted(self.left_out.items())]
        kinds += [f"folder {name}, which cannot be read" for name in self.unreadable]
        return f"left out: {', '.join(kinds)}" if kinds else None


def find_photos(folder: Path, endings: frozenset[str] = ENDINGS) -> PhotoFolder:
    """Find the photos of a folder and its subfolders; linked folders are followed, each once.

    Metadata files of macOS (`._photo.jpg`) and pictures drawn by `capprune caption --explain` are left out.

    Args:
        folder: The folder.
        endings: Extensions of the files that count, in lower case.

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
    """Return the kind of a file that is not a photo; None for a photo."""
    if path.name.startswith(APPLE_DOUBLE):
        return "AppleDouble (._*)"
    if path.suffix.lower() not in endings:
        return path.suffix.lower() or (path.name if path.name.startswith(".") else "without ending")
    if not path.is_file():
        return f"{path.suffix.lower()} that is no plain file"
    return "drawn by --explain" if path.suffix.lower() == ".png" and _is_explanation(path) else None


def _is_explanation(path: Path) -> bool:
    """Return whether a PNG was drawn by `capprune caption --explain`, and so is not a photo."""
    try:
        with path.open("rb") as file:
            return f"Software\0{EXPLANATION}".encode() in file.read(MARKED_WITHIN)
    except OSError:  # reading the photo later reports the error
        return False


def _files(folder: Path, unreadable: list[str]) -> Iterator[Path]:
    seen = set()
    for current, folders, files in os.walk(
        folder, followlinks=True, onerror=lambda error: unreadable.append(str(error.filename))
    ):
        try:
            status = Path(current).stat()
        except OSError:  # removed in the meantime
            unreadable.append(current)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:  # a link to a parent folder
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (Path(current, name) for name in files)
