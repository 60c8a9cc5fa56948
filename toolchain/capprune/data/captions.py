"""Photos with captions, read from a Karpathy-layout JSON or from COCO captions JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final, TypeVar

from capprune.data.words import words as words
from capprune_runtime.errors import DataError, MissingExtra, UsageError

_PATTERNS: Final = ("dataset_*.json", "captions_*.json")
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class CaptionedPhoto:
    """One photo and what people said of it.

    Attributes:
        name: Path of the photo inside its data set, with `/`.
        split: "train", "val", "test" or what else the data set calls its parts.
        captions: At least one, as they were written.
    """

    name: str
    split: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionSet:
    """All captioned photos of a data set.

    Attributes:
        name: What the data set calls itself.
        photos: In the order of its file.
    """

    name: str
    photos: tuple[CaptionedPhoto, ...]

    @property
    def splits(self) -> dict[str, int]:
        """Photos in each split, in the order in which the splits appear."""
        sizes: dict[str, int] = {}
        for photo in self.photos:
            sizes[photo.split] = sizes.get(photo.split, 0) + 1
        return sizes

    def split(self, split: str) -> tuple[CaptionedPhoto, ...]:
        """The photos of one split.

        Raises:
            DataError: There are none; the message names the splits that there are.
        """
        chosen = tuple(photo for photo in self.photos if photo.split == split)
        if not chosen:
            sizes = ", ".join(f"{name} ({size:,} photos)" for name, size in self.splits.items())
            raise DataError(
                f"the split '{split}' is empty", where=self.name, expected="at least one photo", found=sizes
            )
        return chosen


def load_caption_set(folder: Path) -> CaptionSet:
    """Read the captions of a data set.

    Two kinds of files are known, and a folder must hold one of them: `dataset_<name>.json` in Karpathy's layout
    (Flickr8k, Flickr30k, COCO; its "restval" counts as train), or COCO captions, a file `captions_<split>.json`
    for each split (`captions_train2014.json` is train).

    Args:
        folder: What `--data` names.

    Returns:
        All photos in the order of the file. Captions without any word are left out.

    Raises:
        UsageError: There is no such folder, or it holds no captions file or more than one kind of them.
        DataError: A captions file is broken, a photo has no captions, or two photos have one name.
        MissingExtra: pycocotools, which reads COCO captions, is not installed.
    """
    if not folder.is_dir():
        raise UsageError("there is no such data folder", where=folder, hint="name the folder of captions and photos")
    karpathy, coco = (sorted(folder.glob(pattern)) for pattern in _PATTERNS)
    if len(karpathy) + bool(coco) != 1:
        raise UsageError(
            "a data folder holds one data set",
            where=folder,
            expected=f"one {_PATTERNS[0]} (Karpathy's layout), or {_PATTERNS[1]} (COCO captions), one a split",
            found=", ".join(path.name for path in karpathy + coco) or "no captions file",
        )
    if karpathy:
        name, photos = _read_karpathy(karpathy[0])
    else:
        name, photos = folder.resolve().name, [photo for path in coco for photo in _read_coco(path)]
    _check_names(photos, folder)
    return CaptionSet(name, tuple(photos))


def _read_karpathy(path: Path) -> tuple[str, list[CaptionedPhoto]]:
    with _broken_is_data_error(path):
        content = json.loads(path.read_bytes())
        entries = _field(content, "images", list)
        name = str(content.get("dataset") or path.stem.removeprefix("dataset_"))
    photos = []
    for number, entry in enumerate(entries):
        where = f"{path}, image {number}"
        with _broken_is_data_error(where):
            name_in_folder, split = _field(entry, "filename", str), _field(entry, "split", str)
            photo = "/".join(filter(None, (entry.get("filepath"), name_in_folder)))
            captions = [_field(sentence, "raw", str) for sentence in _field(entry, "sentences", list)]
        photos.append(_captioned(photo, "train" if split == "restval" else split, captions, where))
    return name, photos


def _read_coco(path: Path) -> Iterator[CaptionedPhoto]:
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise MissingExtra(
            "COCO captions need pycocotools", where=path, hint="pip install 'capprune[train]'"
        ) from error
    with _broken_is_data_error(path), redirect_stdout(StringIO()):  # it prints how long it took
        coco = COCO(str(path))
        images = _field(coco.dataset, "images", list)
        _field(coco.dataset, "annotations", list)
    named = re.match(r"captions_(train|val|test)\d*\.json$", path.name)
    split = named[1] if named else path.stem.removeprefix("captions_")
    for image in images:
        where = f"{path}, image {image['id']}"
        with _broken_is_data_error(where):
            name = _field(image, "file_name", str)
            captions = [_field(annotation, "caption", str) for annotation in coco.imgToAnns[image["id"]]]
        yield _captioned(name, split, captions, where)


def _captioned(name: str, split: str, captions: list[str], where: str) -> CaptionedPhoto:
    spoken = tuple(" ".join(caption.split()) for caption in captions if words(caption))
    if not spoken:
        raise DataError(
            "a photo without captions",
            where=f"{where} ({name})",
            expected="at least one caption with a word of letters or digits",
            found=f"{len(captions)} captions, none with a word" if captions else "none",
        )
    return CaptionedPhoto(name, split, spoken)


def _check_names(photos: list[CaptionedPhoto], folder: Path) -> None:
    if not photos:
        raise DataError("a data set without photos", where=folder, expected="at least one photo with captions")
    twice = [name for name, times in Counter(photo.name for photo in photos).items() if times > 1]
    if twice:
        raise DataError(
            "two photos have one name", where=folder, found=f"{len(twice):,} such names, the first {twice[0]}"
        )


def _field(entry: Any, key: str, kind: type[_Kind]) -> _Kind:
    value = entry[key]
    if not isinstance(value, kind):
        raise TypeError(f"'{key}' is no {kind.__name__}")
    return value


@contextmanager
def _broken_is_data_error(where: object) -> Iterator[None]:
    """What a broken captions file raises in us and in pycocotools, as the user's error."""
    try:
        yield
    except OSError as error:
        raise DataError("the captions cannot be read", where=where, found=error.strerror) from error
    except KeyError as error:
        raise DataError("a captions file is incomplete", where=where, found=f"no key {error}") from error
    except (ValueError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise DataError(
            "a captions file is broken", where=where, found=error, hint="it may have been cut off; fetch it again"
        ) from error
