"""Hugging Face's imagefolder: `metadata.csv`, `metadata.jsonl` or `metadata.parquet` next to its photos."""

from __future__ import annotations

from typing import Final

from capprune.data.folder import FolderContents, folder_of
from capprune.data.layouts.found import FoundSet, Layout
from capprune.data.layouts.table import is_metadata, read_tables
from capprune_runtime.errors import UsageError


def _claims(contents: FolderContents) -> tuple[str, ...]:
    return tuple(name for name in contents.files if is_metadata(name))


def _read(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    places = [folder_of(name) for name in files]
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise UsageError(
            "a folder has two tables of metadata",
            where=contents.folder / twice[0],
            expected="one metadata.csv, metadata.jsonl or metadata.parquet a folder",
            found=", ".join(name for name in files if folder_of(name) == twice[0]),
            hint="move one of them away",
        )
    return read_tables(contents, files)


IMAGEFOLDER: Final = Layout(
    "imagefolder",
    "a Hugging Face imagefolder",
    "metadata.csv, metadata.jsonl or metadata.parquet, in each split's folder or once",
    _claims,
    _read,
)
