"""VizWiz-Captions as unzipped: `annotations/train.json`, `val.json`, `test.json`, next to `train/`, `val/`, `test/`.

The files have COCO's structure. Any other JSON with `images` and `annotations` with captions is read too. Captions that
VizWiz marks as rejected or precanned are left out, as in its own evaluation. The challenge's test file has no captions.
"""

from __future__ import annotations

from typing import Final

from capprune.data.folder import FolderContents, base_name
from capprune.data.layouts.coco import read_annotations
from capprune.data.layouts.found import FoundSet, Layout, at_least_depth, set_name
from capprune.data.layouts.json_files import json_files, json_kind
from capprune.data.layouts.splits import split_of_file, split_of_folder
from capprune.data.left_out import LeftOutBook


def _claims(contents: FolderContents) -> tuple[str, ...]:
    others = [name for name in json_files(contents) if not base_name(name).startswith("captions_")]
    return at_least_depth(name for name in others if json_kind(contents, name) == "coco")


def _read(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    found = read_annotations(contents, {file: split_of_file(file) or split_of_folder(file) for file in files})
    book = LeftOutBook()
    book.add_all(found.left_out)
    book.add("annotation files without captions", *_without_captions(contents, files))
    return FoundSet(set_name(contents), found.photos, found.files, book.entries())


def _without_captions(contents: FolderContents, files: tuple[str, ...]) -> list[str]:
    """Return files beside those read that list only photos, such as VizWiz's own test.json."""
    places = {name.rpartition("/")[0] for name in files}
    found = []
    for name in json_files(contents):
        if name not in files and name.rpartition("/")[0] in places and split_of_file(name):
            found.append(name)
    return found


VIZWIZ: Final = Layout(
    "vizwiz", "VizWiz annotations", "annotations/<split>.json with images and annotations", _claims, _read
)
