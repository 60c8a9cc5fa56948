"""COCO captions as unzipped: `annotations/captions_train2017.json` and so on, next to `train2017/`, `val2017/`.

The files may also be in the folder itself. Other annotations of COCO, such as `instances_train2017.json`, are not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Final

from capprune.data.folder import FolderContents, base_name, ending, without_ending
from capprune.data.layouts.found import FoundPhoto, FoundSet, Layout, at_least_depth, set_name
from capprune.data.layouts.json_files import broken_is_data_error, field, json_files, json_kind
from capprune.data.layouts.splits import split_name
from capprune.data.left_out import LeftOutBook
from capprune_runtime.errors import MissingExtra, UsageError

_OFFICIAL: Final = re.compile(r"captions_(train|val|test)\d*")
REJECTED: Final = "captions that their data set marks as rejected or precanned"


def _claims(contents: FolderContents) -> tuple[str, ...]:
    named = [name for name in json_files(contents) if base_name(name).startswith("captions_")]
    own = [name for name in named if json_kind(contents, name) not in ("karpathy", "records", "mapping")]
    return at_least_depth(own)


def _read(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    return read_annotations(contents, {file: _split(file) for file in files})


def _split(file: str) -> str:
    stem = without_ending(base_name(file))
    named = _OFFICIAL.fullmatch(stem)
    return named[1] if named else split_name(stem.removeprefix("captions_"))


def read_annotations(contents: FolderContents, splits: Mapping[str, str | None]) -> FoundSet:
    """Read JSON files with `images` and `annotations`.

    Args:
        contents: The files of the data folder.
        splits: For each file, the split that it holds; None if unknown.

    Raises:
        UsageError: Two files hold one split.
        DataError: A file is broken.
    """
    _refuse_two_of_one_split(contents, splits)
    book = LeftOutBook()
    photos: list[FoundPhoto] = []
    for file, split in splits.items():
        photos += _photos(contents, file, split, book)
    return FoundSet(set_name(contents), tuple(photos), tuple(splits), book.entries())


def _refuse_two_of_one_split(contents: FolderContents, splits: Mapping[str, str | None]) -> None:
    for split in splits.values():
        files = [file for file, other in splits.items() if other == split]
        if len(files) > 1:
            raise UsageError(
                "two captions files hold one split",
                where=contents.folder,
                expected=f"one file for {split or 'all photos'}",
                found=", ".join(files),
                hint="move the others away, or name them after their splits",
            )


def _photos(contents: FolderContents, file: str, split: str | None, book: LeftOutBook) -> list[FoundPhoto]:
    path = contents.path(file)
    with broken_is_data_error(path):
        content = contents.parsed(file)
        images = field(content, "images", list)
        annotations = field(content, "annotations", list)
    usable = []
    for number, annotation in enumerate(annotations):
        with broken_is_data_error(f"{path}, annotation {number}"):
            if not isinstance(field(annotation, "caption", object), str):
                book.add("captions that are not text", f"{file}, annotation {number}")
            elif annotation.get("is_rejected") or annotation.get("is_precanned"):
                book.add(REJECTED, f"{file}, annotation {number}")
            else:
                usable.append({"id": number, **annotation, "image_id": str(annotation["image_id"])})
    with broken_is_data_error(path):
        captions = _by_image(images, usable, path)
    photos = []
    seen = set[tuple[str, str]]()
    for number, image in enumerate(images):
        with broken_is_data_error(f"{path}, image number {number}"):
            key = str(image["id"])  # some tools write 7 in one place and "7" in another
            name = field(image, "file_name", str)
        if (key, name) in seen:
            book.add("photos that their file lists twice", f"{file}, image {key} ({name})")
            continue
        seen.add((key, name))
        photos.append(
            FoundPhoto(
                _name(contents, name, file, split), split, tuple(captions.pop(key, ())), f"{path}, image {key} ({name})"
            )
        )
    book.add("captions of photos that their file does not list", *(f"{file}, image_id {key}" for key in captions))
    return photos


def _by_image(images: list[Any], annotations: list[Any], path: object) -> dict[str, list[str]]:
    """Return the captions of each image by its id, as pycocotools indexes them."""
    try:
        from pycocotools.coco import COCO as Index
    except ImportError as error:
        raise MissingExtra(
            "COCO captions need pycocotools", where=path, hint="pip install 'capprune[train]'"
        ) from error
    index = Index()
    index.dataset = {"images": images, "annotations": annotations}
    with redirect_stdout(StringIO()):  # pycocotools prints its progress
        index.createIndex()
    return {key: [one["caption"] for one in found] for key, found in index.imgToAnns.items()}


def _name(contents: FolderContents, written: str, file: str, split: str | None) -> str:
    """Return the photo, preferring folders named like the file: for captions_train2017.json, train2017/ and train/."""
    stem = without_ending(base_name(file)).removeprefix("captions_")
    found = contents.photo(written, near=(stem, *filter(None, (split,))))
    # A name without a matching file is returned as written: it may be the member of a tar file.
    return found if ending(found) else written


COCO: Final = Layout(
    "coco", "COCO captions", "captions_<split>.json, also in annotations/, beside the photos", _claims, _read
)
