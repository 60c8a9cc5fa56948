"""Rows of tables of captions: CSV and TSV with any usual delimiter, JSON lines, a JSON list, parquet."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from capprune.data.folder import ending
from capprune.data.text import numbered_lines, read_text
from capprune_runtime.errors import DataError
from capprune_runtime.photo import ENDINGS

IMAGE_COLUMNS: Final = (
    "file_name", "image", "image_name", "filename", "image_file_name", "image_file", "image_path", "img_name", "img",
    "photo", "photo_name", "file", "filepath", "file_path", "path", "image_id", "image_url", "url",
)  # fmt: skip
CAPTION_COLUMNS: Final = (
    "caption", "captions", "comment", "comments", "text", "texts", "caption_text", "description", "sentence",
    "sentences", "raw", "title", "caption_str",
)  # fmt: skip
SPLIT_COLUMNS: Final = ("split", "set", "subset", "partition", "set_name")
_TURNS: Final = (
    ("from", "value"),
    ("role", "content"),
)  # speaker and text of a conversation, in LLaVA's files and in chat files
_ANSWERS: Final = ("gpt", "assistant")
CONVERSATION_KEYS: Final = ("conversations", "messages")
_NUMBERED_CAPTION: Final = re.compile(rf"({'|'.join(CAPTION_COLUMNS)})_?\d+")  # caption_1, caption2
_DELIMITERS: Final = ("\t", "|", ";", ",")
UNQUOTED: Final = ("\t", "|")  # cells with these delimiters may hold unpaired quotes, as Flickr30k's do
_NUMBER_BEFORE: Final = re.compile(r"\s*\d+\s+(\S.*)")  # "4   A dog", where the delimiter after 4 is missing


@dataclass(frozen=True)
class Row:
    """One row: a photo as written, its captions, its split if the table has one, and the location of the row."""

    image: str
    captions: tuple[str, ...]
    split: str | None
    where: str
    mended: bool = False
    unread: tuple[str, ...] = ()  # other columns that may hold captions


@dataclass(frozen=True)
class Columns:
    """The columns of a table by use, with their names as written.

    Attributes:
        image: The photo's name.
        caption: Its caption, or its first one.
        split: The split; None if there is no such column.
        more: Further captions, of numbered columns such as `caption_2`.
        unread: Other columns whose names suggest captions.
    """

    image: str
    caption: str
    split: str | None = None
    more: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def find_columns(names: Sequence[str]) -> Columns | None:
    """Find the columns of photo, caption and split by name; None if photo or caption is missing."""
    usual = {_usual(name): name for name in reversed(names)}
    image = next((usual[name] for name in IMAGE_COLUMNS if name in usual), None)
    split = next((usual[name] for name in SPLIT_COLUMNS if name in usual), None)
    named = [usual[name] for name in CAPTION_COLUMNS if name in usual]
    numbered = [name for name in names if _NUMBERED_CAPTION.fullmatch(_usual(name))]
    captions = [*named[:1], *numbered]
    if image is None or not captions:
        return None
    return Columns(image, captions[0], split, tuple(captions[1:]), tuple(named[1:]))


def _usual(name: str) -> str:
    return re.sub(r"[\s-]+", "_", str(name).strip().strip("\"'").lower())


def table_header(first_line: str) -> tuple[str, tuple[str, ...], bool] | None:
    """Recognise a CSV by its first line.

    Returns:
        The delimiter, the names of the columns and whether the line is a header; None for another kind of file. A table
        without a header has the photo first and the caption last.
    """
    for delimiter in _DELIMITERS:
        cells = next(csv.reader([first_line], delimiter=delimiter), [])
        if len(cells) > 1 and find_columns(cells) is not None:
            return delimiter, tuple(cells), True
    for delimiter in _DELIMITERS:
        cells = next(csv.reader([first_line], delimiter=delimiter), [])
        if len(cells) > 1 and ending(cells[0].strip()) in ENDINGS:
            numbered = len(cells) > 2 and cells[1].strip().isdigit()
            return delimiter, ("image", "number", "caption") if numbered else ("image", "caption"), False
    return None


def first_line(path: Path) -> str:
    """Return the first line of a text file, without an Excel hint such as `sep=;`; empty if it is not text."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 14)
    except OSError:
        return ""
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = start.decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")
    return next((line for line in text.split("\n") if line.strip() and not _is_hint(line)), "")


def _is_hint(line: str) -> bool:
    return re.fullmatch(r"\s*sep=.\s*", line) is not None


def csv_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV.

    Raises:
        DataError: It is not a table of photos and captions, or a row cannot be read.
    """
    text = read_text(path)
    lines = [(number, line) for number, line in numbered_lines(text) if not _is_hint(line)]
    header = table_header(lines[0][1]) if lines else None
    if header is None:
        raise DataError("a table has no columns of photo and caption", where=path, expected="such as image,caption")
    delimiter, names, has_header = header
    columns = find_columns(names)
    assert columns is not None  # checked by table_header
    for number, cells in _cells(text, lines, delimiter, path):
        if has_header and number == lines[0][0]:
            continue
        yield _row(cells, names, columns, delimiter, f"{path}, line {number}")


def _cells(text: str, lines: list[tuple[int, str]], delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of every row with the number of its first line. Only `,` and `;` have quoted cells."""
    if delimiter in UNQUOTED:
        for number, line in lines:
            yield number, line.split(delimiter)
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    before = 0
    try:
        for cells in reader:
            number, before = before + 1, reader.line_num
            if any("\n" in cell and _swallowed_rows(cell, delimiter) for cell in cells):
                raise DataError("a quote is not closed", where=f"{path}, line {number}", found=repr(cells[-1][:60]))
            if any(cell.strip() for cell in cells) and not _is_hint(delimiter.join(cells)):
                yield number, cells
    except csv.Error as error:
        raise DataError("a table is broken", where=f"{path}, line {before + 1}", found=error) from error


def _swallowed_rows(cell: str, delimiter: str) -> bool:
    """Return whether a cell over several lines seems to contain further rows."""
    rows = [line.partition(delimiter) for line in cell.split("\n")[1:]]
    return any(ending(name.strip()) in ENDINGS and between for name, between, _ in rows)


def _unquoted(cell: str) -> str:
    cell = cell.strip()
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"') if whole else cell


def _row(cells: list[str], names: tuple[str, ...], columns: Columns, delimiter: str, where: str) -> Row:
    at = names.index(columns.caption)
    mended = False
    if len(cells) > len(names):  # an unquoted delimiter inside the last column
        if at != len(names) - 1:
            raise DataError(
                "a row has too many cells", where=where, expected=f"{len(names)}: {', '.join(names)}", found=len(cells)
            )
        cells = [*cells[:at], delimiter.join(cells[at:])]
    elif len(cells) == at and at > 1 and (match := _NUMBER_BEFORE.fullmatch(cells[-1])):
        cells, mended = [*cells, match[1]], True
    if delimiter in UNQUOTED:
        cells = [_unquoted(cell) for cell in cells]
    cells = cells + [""] * (len(names) - len(cells))
    return _made(dict(zip(names, cells, strict=True)), columns, where, mended)


def json_rows(content: Any, path: Path) -> Iterator[Row]:
    """Yield the rows of a JSON list of objects.

    Raises:
        DataError: A row is not an object, or has no photo or caption.
    """
    for number, entry in enumerate(content):
        yield record_row(entry, f"{path}, entry {number}")


def jsonl_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file with one JSON object per line.

    Raises:
        DataError: A line is not JSON, or has no photo or caption.
    """
    for number, line in numbered_lines(read_text(path)):
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError("a captions file is broken", where=where, found=error) from error
        yield record_row(entry, where)


def record_row(entry: Any, where: str) -> Row:
    """Return the row of a JSON object.

    Raises:
        DataError: It has no photo or caption.
    """
    answers = _answers(entry) if isinstance(entry, dict) else []
    if answers:
        entry = {**{key: value for key, value in entry.items() if key not in CONVERSATION_KEYS}, "caption": answers[0]}
    columns = find_columns(list(entry)) if isinstance(entry, dict) else None
    if columns is None:
        raise DataError(
            "an entry has no photo or no caption",
            where=where,
            expected=f"a key such as {', '.join(IMAGE_COLUMNS[:3])}, and one such as {', '.join(CAPTION_COLUMNS[:4])}",
            found=", ".join(map(str, entry))[:100] if isinstance(entry, dict) else type(entry).__name__,
        )
    row = _made(entry, columns, where)
    return replace(row, unread=(*row.unread, "later answers")) if len(answers) > 1 else row


def _answers(entry: Mapping[str, Any]) -> list[str]:
    """Return the model's answers in a conversation about a photo, as in LLaVA's files; empty for other entries."""
    turns = next((entry[key] for key in CONVERSATION_KEYS if isinstance(entry.get(key), list)), ())
    return [
        turn[value]
        for turn in turns
        for speaker, value in _TURNS
        if isinstance(turn, dict) and turn.get(speaker) in _ANSWERS and isinstance(turn.get(value), str)
    ]


def _made(entry: Mapping[str, Any], columns: Columns, where: str, mended: bool = False) -> Row:
    split = entry.get(columns.split) if columns.split is not None else None
    image = str(entry[columns.image] if entry[columns.image] is not None else "").strip()
    if not image:
        raise DataError("a row names no photo", where=where, expected=f"a file name under {columns.image.strip()}")
    split = str(split).strip() or None if split is not None else None
    captions = [text for column in (columns.caption, *columns.more) for text in captions_in(entry[column])]
    unread = tuple(column for column in columns.unread if any(captions_in(entry[column])))
    return Row(image, tuple(captions), split, where, mended, unread)


def captions_in(value: Any) -> tuple[str, ...]:
    """Return the captions of a cell: a text, a list of texts, or a list written as text."""
    if value is None or value != value:  # NaN, which pandas writes for an empty cell
        return ()
    if isinstance(value, str):
        listed = _listed(value)
        return (value.strip(),) if listed is None else captions_in(listed)
    if isinstance(value, Mapping):
        return next((captions_in(value[key]) for key in CAPTION_COLUMNS if key in value), ())
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return tuple(text for one in list(value) for text in captions_in(one))
    return (str(value),)


def _listed(text: str) -> list[Any] | None:
    """Parse a list of captions in one cell, written as JSON or as Python prints it; None for any other text."""
    stripped = text.strip()
    if not (stripped.startswith(("['", '["')) and stripped.endswith(("']", '"]'))):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(stripped)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list) else None
    return None
