"""The files of a data folder: one walk, with a count of everything that is left out."""

from __future__ import annotations

import json
import os
import posixpath
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

from capprune.data.left_out import LeftOut, LeftOutBook
from capprune_runtime.errors import DataError, UsageError
from capprune_runtime.photo import ENDINGS

LONGEST_NUMBER: Final = 18  # digits in the name of a photo; COCO's have twelve
SYSTEM_FOLDERS: Final = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})


class FolderContents:
    """The files in a folder, as relative paths with `/`.

    Attributes:
        folder: The folder.
        files: Every file that is not hidden, at any depth, sorted folder by folder.
        left_out: Hidden files, unreadable folders, broken links.
        found_otherwise: Photos that `photo` found under another spelling, or more than once.
    """

    def __init__(self, folder: Path, files: Sequence[str], left_out: Sequence[LeftOut] = ()) -> None:
        self.folder, self.files, self.left_out = folder, tuple(files), tuple(left_out)
        self.found_otherwise = LeftOutBook()
        self._parsed: dict[str, Any] = {}
        self._written_as: dict[str, str] = {}
        self._answers: dict[tuple[str, str, tuple[str, ...]], str] = {}

    @cached_property
    def photos(self) -> tuple[str, ...]:
        """The files with the ending of a photo."""
        return tuple(name for name in self.files if ending(name) in ENDINGS)

    @cached_property
    def tars(self) -> tuple[str, ...]:
        """The uncompressed tar files."""
        return tuple(name for name in self.files if ending(name) == ".tar")

    @cached_property
    def stems(self) -> frozenset[str]:
        """The photo files without their endings."""
        return frozenset(without_ending(name) for name in self.photos)

    @cached_property
    def _photo_set(self) -> frozenset[str]:
        return frozenset(self.photos)

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        """Photos by base name, and by base name without its ending."""
        found: dict[str, list[str]] = {}
        for name in self.photos:
            base = base_name(name)
            found.setdefault(base, []).append(name)
            found.setdefault(without_ending(base), []).append(name)
        return found

    @cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        """Photos by base name without its ending, ignoring case and Unicode normalisation."""
        found: dict[str, list[str]] = {}
        for name in self.photos:
            found.setdefault(loosely(base_name(name)), []).append(name)
        return found

    @cached_property
    def _by_number(self) -> dict[int, list[str]]:
        """Photos whose names are numbers; tables may omit the leading zeros."""
        found: dict[int, list[str]] = {}
        for name in self.photos:
            if _is_number(stem := without_ending(base_name(name))):
                found.setdefault(int(stem), []).append(name)
        return found

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    def is_sidecar(self, name: str) -> bool:
        """Return whether a file has the name of a photo beside it, such as a.txt beside a.jpg."""
        stem = without_ending(name)
        return stem in self.stems or stem in self._photo_set

    def parsed(self, name: str) -> Any:
        """Return the content of a JSON file, parsed once.

        Raises:
            OSError: It cannot be read.
            ValueError: It is not JSON.
            RecursionError: It is nested too deeply.
        """
        if name not in self._parsed:
            self._parsed[name] = json.loads(self.path(name).read_bytes())
        return self._parsed[name]

    def photo(self, written: str, *, beside: str = "", near: Sequence[str] = ()) -> str:
        """Find the photo file that a captions file refers to.

        Args:
            written: The name in the captions file; `\\` counts as `/`, and the ending may be missing.
            beside: Folder of the captions file, which names may be relative to.
            near: Folder names that are preferred among photos of one name, such as `train2017`.

        Returns:
            The photo's path in the folder, or the name as written if it does not match exactly one photo.

        Raises:
            DataError: Another name, with another folder, refers to the same photo.
        """
        asked = written, beside, tuple(near)
        if asked not in self._answers:
            self._answers[asked] = self._find(written, beside, near)
            self._refuse_merging(self._answers[asked], written)
        return self._answers[asked]

    def names_one_photo(self, name: str) -> bool:
        """Return whether a name is the path of a photo file, or the base name of a single one."""
        return name in self._photo_set or len(self._by_base.get(base_name(name), [])) == 1

    def _find(self, written: str, beside: str, near: Sequence[str]) -> str:
        if not beside and written in self._photo_set:
            return written
        for name in dict.fromkeys((written, written.replace("\\", "/"))):
            for base in dict.fromkeys((beside, "")):
                candidate = posixpath.normpath(posixpath.join(base, name))
                if candidate in self._photo_set:
                    return candidate
        name = posixpath.normpath(written.replace("\\", "/"))
        found = self._by_base.get(base_name(name), [])
        stem = without_ending(base_name(name)) if ending(name) in ENDINGS else base_name(name)
        numbered = self._by_number.get(int(stem), []) if _is_number(stem) else []
        alike = dict.fromkeys((loosely(base_name(name)), loosely(unquote(base_name(name)))))
        spelt = next((self._by_spelling[one] for one in alike if one in self._by_spelling), numbered)
        if not found and (found := spelt):
            self.found_otherwise.add("photos found under another spelling", f"{name} ({found[0]})")
        if len(found) > 1:
            found = _best(found, name, beside, near)
        if len(found) > 1 and self._are_copies(found):
            found = sorted(found, key=lambda one: (one.count("/"), one))
            self.found_otherwise.add("photos that are in the folder more than once, the first used", " = ".join(found))
            return found[0]
        return found[0] if len(found) == 1 else _plain(name)

    def _refuse_merging(self, photo: str, written: str) -> None:
        """Check that names with different folders, such as cats/1.jpg and dogs/1.jpg, do not become one photo."""
        name = _plain(written.replace("\\", "/"))
        other = self._written_as.setdefault(photo, name)
        if not _may_be_one(name, other):
            raise DataError(
                "two names in the captions mean one photo",
                where=self.folder,
                found=f"{written} and {other} for {photo}",
                hint="keep the photos in the folders that the captions name",
            )

    def _are_copies(self, names: Sequence[str]) -> bool:
        """Return whether photos of one base name are copies of the same file."""
        return len(names) > 1 and len({self.path(name).read_bytes() for name in names}) == 1


def _is_number(stem: str) -> bool:
    return stem.isascii() and stem.isdigit() and len(stem) <= LONGEST_NUMBER


def _may_be_one(name: str, other: str) -> bool:
    """Return whether two written names differ only in case, in leading folders, or by a missing ending."""
    ends = {ending(name), ending(other)} & ENDINGS
    short, long = sorted((f"/{loosely(name)}", f"/{loosely(other)}"), key=len)
    return len(ends) < 2 and long.endswith(short)


def _best(found: list[str], written: str, beside: str, near: Sequence[str]) -> list[str]:
    """Return the photos of one base name that best match the written path, then `near`, then the captions' folder."""
    ending_in = [name for name in found if f"/{name}".endswith(f"/{_plain(written)}")]
    found = ending_in or found
    wanted = {part.lower() for part in near}
    within = [name for name in found if wanted & {part.lower() for part in PurePosixPath(name).parts[:-1]}]
    found = within or found
    under = [name for name in found if beside and name.startswith(f"{beside}/")]
    return under or found


def _plain(name: str) -> str:
    """Return a written path without parts that lead out of the data folder."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def base_name(name: str) -> str:
    """Return the last part of a path with `/`."""
    return name.rpartition("/")[2]


def folder_of(name: str) -> str:
    """Return the folder of a file, "" for the data folder itself."""
    return name.rpartition("/")[0]


def ending(name: str) -> str:
    """Return the ending of a file's name in lower case, with its dot."""
    return posixpath.splitext(name)[1].lower()


def without_ending(name: str) -> str:
    """Return a path without the ending of its last part."""
    return posixpath.splitext(name)[0]


def loosely(name: str) -> str:
    """Return a name without its photo ending, normalised for file systems that differ in case and Unicode form."""
    stem = without_ending(name) if ending(name) in ENDINGS else name
    return unicodedata.normalize("NFC", stem).casefold()


def read_folder(folder: Path) -> FolderContents:
    """Walk a folder once. Linked folders are followed, because large photo sets are often linked.

    Raises:
        UsageError: There is no such folder.
    """
    if not folder.is_dir():
        raise UsageError("this data folder does not exist", where=folder, hint="name the folder of captions and photos")
    book, files, seen = LeftOutBook(), list[str](), set[tuple[int, int]]()

    def unreadable(error: OSError) -> None:
        book.add("folders that cannot be read", _relative(Path(error.filename), folder))

    for current, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        place = Path(current)
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a parent folder, or to a folder that was already read
            book.add("links to folders that were read already", _relative(place, folder))
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        hidden = sorted(name for name in folders if _is_hidden(name))
        book.add("hidden folders", *(_relative(place / name, folder) for name in hidden))
        folders[:] = sorted(name for name in folders if name not in hidden)
        for name in sorted(names):
            _sort_in(current, name, folder, files, book)
    return FolderContents(folder, files, book.entries())


def _sort_in(current: str, name: str, folder: Path, files: list[str], book: LeftOutBook) -> None:
    path = os.path.join(current, name)  # noqa: PTH118  a Path each is slow for 100,000 files
    relative = _relative_text(path, folder)
    if _is_hidden(name):
        book.add("hidden files", relative)
    elif not _is_utf8(path.removeprefix(str(folder))):
        book.add("files whose names are not UTF-8", relative)
    elif os.path.isfile(path):  # noqa: PTH113
        files.append(relative)
    else:
        book.add("links that lead nowhere, or special files", relative)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # os.walk keeps bytes that are not UTF-8 as surrogates
        return False
    return True


def _relative(path: Path, folder: Path) -> str:
    return _relative_text(str(path), folder)


def _relative_text(path: str, folder: Path) -> str:
    top = str(folder)
    name = path.removeprefix("./" if top == "." else top).lstrip("/")
    return name if _is_utf8(name) else name.encode("utf-8", "backslashreplace").decode()
