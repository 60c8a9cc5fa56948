"""WebDataset: tar files that hold each photo with its captions, as `1.jpg` with `1.txt`, `1.json` or both.

Tar files are read once from start to end; photos are not extracted.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from capprune.data.folder import FolderContents, ending, without_ending
from capprune.data.layouts.found import FoundPhoto, FoundSet, Layout, set_name
from capprune.data.layouts.sidecar import TEXTS, joined, sidecar_captions
from capprune.data.layouts.splits import split_of_file, split_of_folder
from capprune.data.left_out import LeftOutBook
from capprune.data.tars import is_plain_member, tar_is_broken
from capprune_runtime.errors import DataError
from capprune_runtime.photo import ENDINGS

LONGEST_TEXT: Final = 1 << 20  # bytes of captions of one photo


@dataclass
class _Sample:
    """The members of one key."""

    photos: list[str] = field(default_factory=list)
    captions: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _claims(contents: FolderContents) -> tuple[str, ...]:
    return tuple(name for name in contents.tars if _has_captions(contents, name))


def _has_captions(contents: FolderContents, name: str) -> bool:
    """Return whether one of the first members of a tar file is a text with a photo's name; a sample's members are adjacent."""
    keys: dict[str, set[bool]] = {}
    with tar_is_broken(contents.path(name)), tarfile.open(contents.path(name), "r:") as tar:
        for number, member in enumerate(tar):
            end = ending(member.name)
            if is_plain_member(member) and (end in TEXTS or end in ENDINGS):
                keys.setdefault(without_ending(member.name), set()).add(end in TEXTS)
            if number >= 200:
                break
    return any(len(kinds) == 2 for kinds in keys.values())


def _read(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    book = LeftOutBook()
    samples = {file: _samples(contents, file, book) for file in files}
    times = Counter(photo for tar in samples.values() for sample in tar.values() for photo in sample.photos)
    photos = []
    for file, keys in samples.items():
        split = split_of_file(file) or split_of_folder(file)
        for key, sample in keys.items():
            where = f"{contents.path(file)}, {key}"
            for photo in sample.photos:
                name = photo if times[photo] == 1 else f"{file}/{photo}"
                part = split or split_of_folder(photo)
                photos.append(FoundPhoto(name, part, joined(sample.captions), where))
            if not sample.photos:
                book.add("texts in tar files without a photo", f"{file}/{key}")
    return FoundSet(set_name(contents), tuple(photos), files, book.entries())


def _samples(contents: FolderContents, file: str, book: LeftOutBook) -> dict[str, _Sample]:
    path, samples = contents.path(file), dict[str, _Sample]()
    with tar_is_broken(path), tarfile.open(path, "r:") as tar:
        for member in tar:
            name, end = member.name.removeprefix("./"), ending(member.name)
            if not is_plain_member(member):
                if not member.isdir():
                    book.add("members of tar files that are links or lead outside", f"{file}/{name}")
            elif end in ENDINGS:
                samples.setdefault(without_ending(name), _Sample()).photos.append(name)
            elif end in TEXTS:
                sample = samples.setdefault(without_ending(name), _Sample())
                if end in sample.captions:
                    raise DataError("a tar file holds two members of one name", where=path, found=name)
                sample.captions[end] = sidecar_captions(end, _content(tar, member, path), f"{path}, {name}", book)
            else:
                book.add(f"members of tar files ending in {end or 'nothing'}", f"{file}/{name}")
    return samples


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: object) -> bytes:
    if member.size > LONGEST_TEXT:
        raise DataError(
            "the captions of one photo are too long",
            where=f"{path}, {member.name}",
            expected=f"at most {LONGEST_TEXT:,} bytes",
            found=f"{member.size:,}",
        )
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


WEBDATASET: Final = Layout(
    "webdataset", "WebDataset tar files", "train-000000.tar with 1.jpg and 1.txt or 1.json", _claims, _read, weak=True
)
