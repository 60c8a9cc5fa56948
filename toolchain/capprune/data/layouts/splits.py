"""Detection of splits from folder names, file names and lists of photos."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from capprune.data.folder import FolderContents, base_name, ending, without_ending
from capprune.data.layouts.found import FoundPhoto
from capprune.data.left_out import LeftOut, LeftOutBook
from capprune.data.text import numbered_lines, read_text
from capprune_runtime.errors import DataError
from capprune_runtime.photo import ENDINGS

_OTHER_NAMES: Final = {
    "training": "train",
    "restval": "train",  # the rest of COCO's val in Karpathy's split, commonly used for training
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "testing": "test",
}
_KNOWN: Final = "train|training|restval|val|valid|validation|dev|eval|test|testing"
_WHOLE: Final = re.compile(rf"({_KNOWN})(?:[-_]?\d+)*", re.IGNORECASE)
_INSIDE: Final = re.compile(rf"(?:^|[._-])({_KNOWN})(?:$|[._-]|\d)", re.IGNORECASE)
_LIST: Final = re.compile(
    rf"(?:^|.*[._-])({_KNOWN})(?:[._-]?(?:images|imgs|list|split|ids|files))?\.txt", re.IGNORECASE
)


def split_name(written: str) -> str:
    """Return the usual name of a split: "val" for "validation" and "dev", "train" for "restval"; others unchanged."""
    name = written.strip()
    return name.lower() if name.lower() in ("train", "val", "test") else _OTHER_NAMES.get(name.lower(), name)


def split_of_folder(name: str) -> str | None:
    """Return the split in a path's folder names, such as train2017/1.jpg; the innermost such folder counts."""
    for part in reversed(PurePosixPath(name).parts[:-1]):
        if match := _WHOLE.fullmatch(part):
            return split_name(match[1].lower())
    return None


def split_of_file(name: str) -> str | None:
    """Return the split in the name of a captions file, such as captions_val.csv or train-00000.tar."""
    match = _INSIDE.search(without_ending(base_name(name)))
    return split_name(match[1].lower()) if match else None


def split_lists(contents: FolderContents) -> tuple[str, ...]:
    """Return the files that list the photos of a split, such as Flickr_8k.trainImages.txt."""
    return tuple(name for name in contents.files if _LIST.fullmatch(base_name(name)) and not contents.is_sidecar(name))


def split_by_lists(
    contents: FolderContents, lists: Sequence[str], photos: Sequence[FoundPhoto]
) -> tuple[tuple[FoundPhoto, ...], tuple[LeftOut, ...]]:
    """Give each photo the split of the list that contains it; unlisted photos are left out.

    Raises:
        DataError: A photo is in two lists.
    """
    splits: dict[str, tuple[str, str]] = {}  # the split and the list, by base name without ending
    names: dict[str, str] = {}
    for name in lists:
        match = _LIST.fullmatch(base_name(name))
        split = split_name(match[1].lower()) if match else name
        for number, line in numbered_lines(read_text(contents.path(name))):
            key = _key(line.strip())
            earlier, where = splits.setdefault(key, (split, name))
            if earlier != split:
                raise DataError(
                    "a photo is in two splits",
                    where=f"{contents.path(name)}, line {number} ({line.strip()})",
                    found=f"{earlier} in {where}, {split} here",
                )
            names[key] = line.strip()
    book, found = LeftOutBook(), []
    for photo in photos:
        key = _key(photo.name)
        if key in splits:
            found.append(replace(photo, split=splits[key][0]))
            names.pop(key, None)
        else:
            book.add("photos that no split list names", photo.name)
    book.add("photos of a split list without captions", *names.values())
    return tuple(found), book.entries()


def _key(name: str) -> str:
    base = base_name(name.replace("\\", "/"))
    return without_ending(base) if ending(base) in ENDINGS else base


def all_have_splits(photos: Iterable[FoundPhoto]) -> bool:
    """Return whether every photo has a split."""
    return all(photo.split is not None for photo in photos)
