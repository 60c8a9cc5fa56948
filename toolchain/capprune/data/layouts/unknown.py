"""Error messages for a folder in no known layout: its content, the most similar layout, and a useful command."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Final

from capprune.data.archives import unpack_command
from capprune.data.folder import FolderContents, base_name, ending
from capprune.data.layouts.found import Layout
from capprune.data.layouts.rows import first_line
from capprune_runtime.errors import UsageError
from capprune_runtime.photo import ENDINGS

SHOWN_KINDS: Final = 6
_SHEETS: Final = (".xlsx", ".xls", ".ods", ".numbers")


def unknown_layout(contents: FolderContents, layouts: Sequence[Layout]) -> UsageError:
    """Return the error for a folder in which no layout finds captions."""
    nearest, hint = _nearest(contents)
    known = "; ".join(layout.shape for layout in layouts)
    return UsageError(
        "this folder holds captions in no layout that is known",
        where=contents.folder,
        expected=f"{nearest}" if nearest else f"one of: {known}",
        found=describe(contents),
        hint=hint,
    )


def describe(contents: FolderContents) -> str:
    """Describe the content of a folder: "3 .xlsx files and 10 photos"."""
    counts = Counter(ending(name) or "no ending" for name in contents.files if ending(name) not in ENDINGS)
    kinds = [_counted(number, end) for end, number in counts.most_common(SHOWN_KINDS)]
    more = len(counts) - len(kinds)
    parts = [*kinds, *([f"{more} other kinds of files"] if more > 0 else [])]
    photos = len(contents.photos)
    parts.append(f"{photos:,} photo{'s' * (photos != 1)}" if photos else "no photos")
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _counted(number: int, end: str) -> str:
    kind = "without an ending" if end == "no ending" else ""
    files = f"file{'s' * (number != 1)}"
    return f"{number:,} {files} {kind}" if kind else f"{number:,} {end} {files}"


def _nearest(contents: FolderContents) -> tuple[str, str]:
    """Return the most similar layout and the command that makes it."""
    folder = shlex.quote(str(contents.folder))
    check = f"capprune data check {folder}"
    if sheet := _first(contents, _SHEETS):
        convert = f"soffice --headless --convert-to csv --outdir {folder} {_quoted(contents, sheet)}"
        return "a table of captions, saved as CSV with the columns image,caption", f"{convert} && {check}"
    if unpack := unpack_command(contents):
        return "captions and photos, unpacked", f"{unpack} && {check}"
    if table := _first(contents, (".csv", ".tsv")):
        header = first_line(contents.path(table))[:80]
        return (
            f"a table of captions with the columns image,caption; {table} has {header!r}",
            f"name its columns so in the first line of {_quoted(contents, table)}, then {check}",
        )
    if arrow := _first(contents, (".arrow",)):
        return (
            "parquet files, which a Hugging Face data set that was saved to disk is not",
            f'python3 -c "import datasets; datasets.load_from_disk({str(contents.folder)!r})'
            f".to_parquet('data/train-00000-of-00001.parquet')\", for each split; {arrow} holds rows of Arrow",
        )
    if broken := _broken_json(contents):
        return "captions in JSON", f"python3 -m json.tool {_quoted(contents, broken)}, which prints where it is broken"
    if json_file := _first(contents, (".json",)):
        return (
            "captions in JSON, as Karpathy's (images with sentences) or COCO's (images and annotations); "
            f"{json_file} has neither",
            f"write a table captions.csv with the columns image,caption, then {check}",
        )
    if not contents.photos and not contents.tars:
        return "", f"give the folder that holds captions and photos: capprune data check FOLDER; {folder} has neither"
    return (
        "a text file beside each photo (1.jpg with 1.txt), or a table captions.csv with the columns image,caption",
        f"printf 'image,caption\\n' > {folder}/captions.csv, add a line for each caption, then {check}",
    )


def _first(contents: FolderContents, endings: tuple[str, ...]) -> str | None:
    return next((name for name in contents.files if ending(name) in endings), None)


def _broken_json(contents: FolderContents) -> str | None:
    for name in contents.files:
        if ending(name) == ".json" and not contents.is_sidecar(name):
            try:
                contents.parsed(name)
            except (OSError, ValueError, RecursionError):
                return name
    return None


def _quoted(contents: FolderContents, name: str) -> str:
    return shlex.quote(str(contents.folder / name))


def clash(contents: FolderContents, claimed: dict[Layout, tuple[str, ...]]) -> UsageError:
    """Return the error for a folder in which several layouts find captions."""
    found = "; ".join(
        f"{layout.title}: {', '.join(files[:3])}{', …' if len(files) > 3 else ''}" for layout, files in claimed.items()
    )
    names = ", ".join(layout.name for layout in claimed)
    first = next(iter(claimed))
    return UsageError(
        "a data folder holds one data set",
        where=contents.folder,
        expected="captions in one layout",
        found=found,
        hint=f"move the others away, or choose one of {names}: "
        f"capprune data import {shlex.quote(str(contents.folder))} --layout {first.name} --out "
        f"{shlex.quote(base_name(str(contents.folder.resolve())) + '-' + first.name)}",
    )
