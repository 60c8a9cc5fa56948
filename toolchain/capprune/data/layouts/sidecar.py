"""A text next to each photo: `1.jpg` and `1.txt`, one caption per line; or `.caption`, or `.json` with a key `caption`.

The texts may also be in a separate folder (images/1.jpg, captions/1.txt).
"""

from __future__ import annotations

import json
from typing import Final

from capprune.data.folder import FolderContents, base_name, ending, without_ending
from capprune.data.layouts.found import FoundPhoto, FoundSet, Layout, set_name
from capprune.data.layouts.json_files import broken_is_data_error
from capprune.data.layouts.rows import captions_in, find_columns
from capprune.data.layouts.splits import all_have_splits, split_by_lists, split_lists, split_of_folder
from capprune.data.left_out import LeftOutBook
from capprune.data.text import decode_text, numbered_lines
from capprune_runtime.errors import DataError

SAMPLED: Final = 20  # texts that are checked for letters
TEXTS: Final = (".txt", ".caption", ".json")  # in the order in which their captions are read


def sidecar_captions(end: str, content: bytes, where: object, book: LeftOutBook) -> tuple[str, ...]:
    """Return the captions of a photo's text file: one per line, or the value of `caption` or a similar key in JSON.

    Args:
        end: Ending of the file.
        content: Content of the file.
        where: The file, for messages.
        book: Records keys that may hold captions and are not read.

    Raises:
        DataError: The file is broken.
    """
    text = decode_text(content, where)
    if end != ".json":
        return tuple(line.strip() for _, line in numbered_lines(text))
    with broken_is_data_error(where):
        entry = json.loads(text)
    columns = find_columns(["image", *entry]) if isinstance(entry, dict) else None
    if columns is None:
        return captions_in(entry) if isinstance(entry, list | str) else ()
    book.add("captions in columns that are not read", *(f"{key} of {where}" for key in columns.unread if entry[key]))
    return tuple(text for key in (columns.caption, *columns.more) for text in captions_in(entry[key]))


def joined(parts: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the captions of a photo's text files by ending, without duplicates across files."""
    found: list[str] = []
    for end in TEXTS:
        found += [caption for caption in parts.get(end, ()) if caption not in found]
    return tuple(found)


def _pairs(contents: FolderContents) -> dict[str, dict[str, str]]:
    """Return the text files of each photo by ending, next to it or in another folder under the same name."""
    texts = [name for name in contents.files if ending(name) in TEXTS]
    stems: dict[str, list[str]] = {}
    bases: dict[str, list[str]] = {}
    for photo in contents.photos:
        for stem in (without_ending(photo), photo):
            stems.setdefault(stem, []).append(photo)
        bases.setdefault(without_ending(base_name(photo)), []).append(photo)
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        stem = without_ending(text)
        elsewhere = bases.get(base_name(stem), [])
        for photo in stems.get(stem) or (elsewhere if len(elsewhere) == 1 else []):
            found.setdefault(photo, {}).setdefault(ending(text), text)
    return found


def _claims(contents: FolderContents) -> tuple[str, ...]:
    used = {text for texts in _pairs(contents).values() for text in texts.values()}
    texts = tuple(name for name in contents.files if name in used)
    return texts if any(_has_letters(contents, name) for name in texts[:SAMPLED]) else ()


def _has_letters(contents: FolderContents, name: str) -> bool:
    """Return whether a text may be a caption; labels for object detection are numbers."""
    try:
        return any(character.isalpha() for character in decode_text(contents.path(name).read_bytes(), name))
    except DataError:  # a later read reports the error
        return True
    except OSError as error:
        raise DataError("a text cannot be read", where=contents.path(name), found=error.strerror) from error


def _read(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    book, photos = LeftOutBook(), []
    pairs = _pairs(contents)
    owners: dict[str, list[str]] = {}
    for photo in contents.photos:
        texts = pairs.get(photo, {})
        captions = {
            end: sidecar_captions(end, contents.path(text).read_bytes(), contents.path(text), book)
            for end, text in texts.items()
        }
        for text in texts.values():
            owners.setdefault(text, []).append(photo)
        where = str(contents.path(next(iter(texts.values()), photo)))
        photos.append(FoundPhoto(photo, split_of_folder(photo), joined(captions), where))
    shared = [f"{text} ({' and '.join(names)})" for text, names in owners.items() if len(names) > 1]
    book.add("texts that two photos share, read for both", *shared)
    found, lists = tuple(photos), () if all_have_splits(photos) else split_lists(contents)
    if lists:
        found, unused = split_by_lists(contents, lists, found)
        book.add_all(unused)
    return FoundSet(set_name(contents), found, (*files, *lists), book.entries())


SIDECAR: Final = Layout(
    "sidecar", "a text file beside each photo", "1.jpg with 1.txt, one caption a line", _claims, _read, weak=True
)
