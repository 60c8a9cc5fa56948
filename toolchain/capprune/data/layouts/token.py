"""The original files of Flickr8k and Flickr30k: `Flickr8k.token.txt` or `results_20130124.token`, with lists of splits.

1000268201_693b08cb0e.jpg#0	A child in a pink dress is climbing up a set of stairs in an entry way .
"""

from __future__ import annotations

import re
from typing import Final

from capprune.data.folder import FolderContents, base_name, ending, folder_of
from capprune.data.layouts.found import FoundSet, Grouped, Layout, at_least_depth, set_name
from capprune.data.layouts.rows import first_line
from capprune.data.layouts.splits import split_by_lists, split_lists, split_of_folder
from capprune.data.left_out import LeftOutBook
from capprune.data.text import numbered_lines, read_text
from capprune_runtime.errors import DataError
from capprune_runtime.photo import ENDINGS

_FILE: Final = re.compile(r"(?!.*lemma).*\.token(\.txt)?", re.IGNORECASE)
_TEXTS: Final = (".txt", ".token", ".caption", ".captions")
_LINE: Final = re.compile(r"(?P<name>.+?)(?:#\w+)+(?:\t|\s+|$)(?P<caption>.*)")  # Flickr8k-CN has 1.jpg#zhc#0


def _claims(contents: FolderContents) -> tuple[str, ...]:
    return at_least_depth(
        name for name in contents.files if _is_token_file(contents, name) and not contents.is_sidecar(name)
    )


def _is_token_file(contents: FolderContents, name: str) -> bool:
    """Return whether a file has the name of Flickr's files, or is a text that starts with `photo.jpg#0`."""
    if _FILE.fullmatch(base_name(name)):
        return True
    if ending(name) not in _TEXTS or "lemma" in base_name(name).lower():
        return False
    match = _LINE.fullmatch(first_line(contents.path(name)).strip())
    return match is not None and ending(match["name"].strip()) in ENDINGS


def _read(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    (file,) = files
    path, grouped, book = contents.path(file), Grouped(), LeftOutBook()
    odd: dict[str, None] = {}
    for number, line in numbered_lines(read_text(path)):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(
                "a line of captions cannot be read",
                where=f"{path}, line {number}",
                expected="photo.jpg#0, a tab, the caption",
                found=repr(line[:60]),
            )
        written = match["name"].strip()
        if ending(written) not in ENDINGS:  # Flickr8k.token.txt has one such name: 2258277193_586949ec62.jpg.1
            odd[written] = None
            continue
        name = contents.photo(written, beside=folder_of(file))
        grouped.add(name, [match["caption"]], split_of_folder(name), f"{path}, line {number}")
    book.add("names that are not photos", *odd)
    photos, lists = grouped.photos(), split_lists(contents)
    if lists:
        photos, unused = split_by_lists(contents, lists, photos)
        book.add_all(unused)
    return FoundSet(set_name(contents), photos, (file, *lists), book.entries())


TOKEN: Final = Layout(
    "token", "Flickr's token file", "Flickr8k.token.txt or results_20130124.token, with split lists", _claims, _read
)
