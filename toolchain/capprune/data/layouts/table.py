"""Tables of captions, such as Kaggle's `captions.txt` and `results.csv`.

Their columns are `image,caption` and `image_name| comment_number| comment`. CSV, TSV, JSON lines and JSON lists with
common column names are read too, with or without a column `split`. So are several tables with the names of splits
(train.csv, val.csv), and a JSON object from photo to captions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from capprune.data.folder import FolderContents, base_name, ending, folder_of
from capprune.data.layouts.found import FoundSet, Grouped, Layout, at_least_depth, set_name
from capprune.data.layouts.json_files import broken_is_data_error, json_files, json_kind, records_of
from capprune.data.layouts.parquet import parquet_rows
from capprune.data.layouts.rows import Row, captions_in, csv_rows, first_line, json_rows, jsonl_rows, table_header
from capprune.data.layouts.splits import (
    all_have_splits,
    split_by_lists,
    split_lists,
    split_name,
    split_of_file,
    split_of_folder,
)
from capprune.data.left_out import LeftOutBook
from capprune_runtime.errors import DataError, UsageError

TEXTS: Final = (".csv", ".tsv", ".txt")
JSON_LINES: Final = (".jsonl", ".ndjson")


def _claims(contents: FolderContents) -> tuple[str, ...]:
    texts = [
        name
        for name in contents.files
        if ending(name) in TEXTS and not contents.is_sidecar(name) and not is_metadata(name)
    ]
    tables = [name for name in texts if table_header(first_line(contents.path(name))) is not None]
    lines = [name for name in contents.files if ending(name) in JSON_LINES and not is_metadata(name)]
    lists = [
        name
        for name in json_files(contents)
        if json_kind(contents, name) in ("records", "mapping") and not is_metadata(name)
    ]
    return at_least_depth([*tables, *lines, *lists])


def is_metadata(name: str) -> bool:
    """Return whether a file is the table of a Hugging Face imagefolder."""
    return base_name(name).lower() in ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def _read(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    splits = {file: split_of_file(file) or split_of_folder(file) for file in files}
    if len(files) > 1 and (None in splits.values() or len({*splits.values()}) < len(files)):
        raise UsageError(
            "a data folder holds one data set",
            where=contents.folder,
            expected="one table of captions, or one for each split (train.csv, val.csv, test.csv)",
            found=", ".join(files),
            hint="move the others away",
        )
    return read_tables(contents, files)


def read_tables(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    """Read tables. The split of a photo is its column, else the table's name or folder, else the photo's folder.

    Raises:
        DataError: A table is broken.
    """
    grouped, book = Grouped(), LeftOutBook()
    for file in files:
        of_file = split_of_file(file) or split_of_folder(file)
        for row in table_rows(contents, file):
            near = (of_file,) if of_file else ()
            name = contents.photo(row.image, beside=folder_of(file), near=near)
            split = (split_name(row.split) if row.split else None) or of_file or split_of_folder(name)
            grouped.add(name, row.captions, split, row.where)
            book.add(
                "captions in columns that are not read", *(f"{column.strip()} of {row.where}" for column in row.unread)
            )
            if row.mended:
                book.add("rows without a delimiter, read all the same", row.where)
    photos, used = grouped.photos(), files
    lists = () if all_have_splits(photos) else split_lists(contents)
    lists = tuple(name for name in lists if name not in files)
    if lists:
        photos, unused = split_by_lists(contents, lists, photos)
        book.add_all(unused)
        used = (*files, *lists)
    return FoundSet(set_name(contents), photos, used, book.entries())


def table_rows(contents: FolderContents, file: str) -> Iterator[Row]:
    """Yield the rows of a table of any kind.

    Raises:
        DataError: It is broken.
        MissingExtra: It is parquet, and pyarrow is not installed.
    """
    path = contents.path(file)
    if ending(file) in TEXTS:
        return csv_rows(path)
    if ending(file) in JSON_LINES:
        return jsonl_rows(path)
    if ending(file) == ".parquet":
        return parquet_rows(path)
    if json_kind(contents, file) == "mapping":
        return _mapping_rows(contents, file)
    with broken_is_data_error(path):
        return json_rows(records_of(contents.parsed(file)), path)


def _mapping_rows(contents: FolderContents, file: str) -> Iterator[Row]:
    path = contents.path(file)
    with broken_is_data_error(path):
        pairs = json.loads(path.read_bytes(), object_pairs_hook=_pairs)  # a dict would drop one of two equal keys
    seen = set()
    for name, value in pairs:
        if name in seen:
            raise DataError("a photo is named twice in one file", where=path, found=name)
        seen.add(name)
        yield Row(name, captions_in(value), None, f"{path}, {name}")


def _pairs(pairs: list[tuple[str, object]]) -> list[tuple[str, object]]:
    return pairs


TABLE: Final = Layout(
    "table",
    "a table of captions",
    "captions.txt, results.csv or another CSV, TSV or JSON lines with columns such as image and caption",
    _claims,
    _read,
)
