"""Parquet tables, read by pyarrow if it is installed: metadata of an imagefolder, or photos and captions together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from capprune.data.folder import FolderContents, base_name, ending, without_ending
from capprune.data.layouts.found import FoundPhoto, FoundSet, Layout, set_name
from capprune.data.layouts.rows import CAPTION_COLUMNS, Row, captions_in, find_columns, record_row
from capprune.data.layouts.splits import split_name, split_of_file, split_of_folder
from capprune_runtime.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

ROWS_AT_ONCE: Final = 64
_ENDINGS: Final = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp"}


def open_parquet(path: Path) -> ParquetFile:
    """Open a parquet file.

    Raises:
        MissingExtra: pyarrow is not installed.
        DataError: The file is broken.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtra(
            "parquet files need pyarrow", where=path, found=error, hint="pip install 'capprune[parquet]'"
        ) from error
    try:
        return ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("a parquet file is broken", where=path, found=error) from error


def parquet_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a parquet table of photo names and captions.

    Raises:
        MissingExtra: pyarrow is not installed.
        DataError: The file is broken, or a row has no photo or caption.
    """
    number = 0
    for batch in open_parquet(path).iter_batches():
        for entry in batch.to_pylist():
            yield record_row(entry, f"{path}, row {number}")
            number += 1


def _claims(contents: FolderContents) -> tuple[str, ...]:
    return tuple(
        name for name in contents.files if ending(name) == ".parquet" and base_name(name).lower() != "metadata.parquet"
    )


def _read(contents: FolderContents, files: tuple[str, ...]) -> FoundSet:
    photos: list[FoundPhoto] = []
    for file in files:
        photos += _photos(contents, file)
    return FoundSet(set_name(contents), tuple(photos), files)


def _photos(contents: FolderContents, file: str) -> Iterator[FoundPhoto]:
    path = contents.path(file)
    table = open_parquet(path)
    names = table.schema_arrow.names
    embedded = next((name for name in names if _holds_photos(table, name)), None)
    caption = next((name for name in names if name.lower() in CAPTION_COLUMNS), None)
    split = split_of_file(file) or split_of_folder(file)
    if embedded is None:
        yield from _named_photos(contents, path, split)
        return
    if caption is None:
        raise DataError(
            "a parquet file has no captions", where=path, expected=f"one of {', '.join(CAPTION_COLUMNS)}", found=names
        )
    read = _cells(path, embedded)
    own = next((name for name in names if name.lower() == "split"), None)
    columns = [caption, *filter(None, (own,))]
    number = 0
    for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
        for entry in batch.to_pylist():
            name = f"{without_ending(base_name(file))}/{number:06}"
            where = f"{path}, row {number}"
            part = split_name(str(entry[own])) if own is not None and entry[own] else split
            yield FoundPhoto(name, part, captions_in(entry[caption]), where, partial(read, number))
            number += 1


def _named_photos(contents: FolderContents, path: Path, split: str | None) -> Iterator[FoundPhoto]:
    for row in parquet_rows(path):
        name = contents.photo(row.image)
        part = (split_name(row.split) if row.split else None) or split or split_of_folder(name)
        yield FoundPhoto(name, part, row.captions, row.where)


def _holds_photos(table: ParquetFile, name: str) -> bool:
    """Return whether a column is Hugging Face's {bytes, path}, or has bytes and the usual name of a photo column."""
    kind: Any = table.schema_arrow.field(name).type
    text = str(kind)
    return (text.startswith("struct<") and "bytes" in text) or (
        "binary" in text and find_columns([name, "text"]) is not None
    )


def _cells(path: Path, column: str) -> Callable[[int], bytes]:
    """Return a function that reads the photo of a row. It keeps one row group in memory."""
    table = open_parquet(path)
    firsts = [0]
    for group in range(table.num_row_groups):
        firsts.append(firsts[-1] + table.metadata.row_group(group).num_rows)

    @lru_cache(maxsize=1)
    def rows(group: int) -> Any:
        return table.read_row_group(group, columns=[column]).column(0)

    def read(number: int) -> bytes:
        group = max(at for at, first in enumerate(firsts) if first <= number)
        value = rows(group)[number - firsts[group]].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise DataError("a parquet file holds no photo here", where=f"{path}, row {number}", found=type(content))
        return content

    return read


def photo_ending(content: bytes) -> str:
    """Return the file ending for a photo's first bytes; .jpg if they are unknown."""
    return next((end for start, end in _ENDINGS.items() if content.startswith(start)), ".jpg")


PARQUET: Final = Layout(
    "parquet", "parquet files with photos inside", "data/train-00000-of-00001.parquet and so on", _claims, _read
)
