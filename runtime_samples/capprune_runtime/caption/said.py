"""Captions of photos with their confidence, and tables of them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune_runtime.atomic import check_file_place, write_text
from capprune_runtime.caption.captioner import Caption
from capprune_runtime.caption.confidence import is_unsure, marked, mean_log_probability
from capprune_runtime.errors import CapPruneError, UsageError
from capprune_runtime.streams import one_line, shown_name

_FORMULA = tuple(
    "=+-@\uff1d\uff0b\uff0d\uff20"
)  # characters that start a formula in spreadsheets, and their wide forms
_OURS = {".csv": (b"photo,caption,",), ".json": (b'{\n  "schema_version": 1,\n  "captions": [',)}  # how tables start
_CELL_AFTER_SEMICOLON = re.compile(rf"(;\s*)(?=[{re.escape(''.join(_FORMULA))}])")
COLUMNS = ("photo", "caption", "mean_log_probability", "low_confidence", "error")
FAMILIAR = "familiar"  # the last column of a bundle that knows which photos are familiar


@dataclass(frozen=True)
class Said:
    """One photo and its result.

    Attributes:
        photo: Its path as given.
        caption: The caption; None if the photo could not be captioned.
        low_below: Mean log-probability a word below which the bundle marks a caption as unsure; None if it was never
            measured.
        error: Why there is no caption.
        warning: The damage of a photo that was captioned nevertheless.
    """

    photo: Path
    caption: Caption | None
    low_below: float | None
    error: CapPruneError | None
    warning: str | None = None

    @property
    def name(self) -> str:
        """The photo's name, valid in any file: bytes that are not UTF-8 are escaped."""
        return shown_name(self.photo)

    @property
    def marked(self) -> str | None:
        """The caption for people, marked if the model was unsure, or what stands for it; None without a caption."""
        said = self.caption
        return None if said is None else marked(said.text, unsure=self.unsure, confidence=said.confidence)

    @property
    def unsure(self) -> bool | None:
        """Whether the caption is likely to be wrong; None if the bundle has no threshold."""
        return None if self.caption is None else is_unsure(self.caption, self.low_below)

    @property
    def familiar(self) -> bool | None:
        """Whether the photo looks like those that the bundle knows; None if the bundle does not tell them apart."""
        return None if self.caption is None else self.caption.familiar

    def as_json(self) -> dict[str, Any]:
        """Return the result for a JSON document."""
        if self.caption is None:
            return {"photo": self.name, **(_storable(self.error.as_json()) if self.error else {})}
        sure = {"mean_log_probability": mean_log_probability(self.caption), "low_confidence": self.unsure}
        warning = {} if self.warning is None else {"warning": shown_name(self.warning)}
        return {"photo": self.name, **self.caption.as_json(), **sure, **warning}

    def as_row(self) -> dict[str, object]:
        """Return the result as a row of a table."""
        said = self.caption
        familiar: dict[str, object] = {} if self.familiar is None else {FAMILIAR: str(self.familiar).lower()}
        return familiar | dict(
            zip(
                COLUMNS,
                (
                    as_cell(self.name),
                    as_cell(said.text) if said else "",
                    f"{mean_log_probability(said):.4f}" if said else "",
                    "" if self.unsure is None else str(self.unsure).lower(),
                    as_cell(self.error.what) if self.error else "",
                ),
                strict=True,
            )
        )


def as_cell(text: str) -> str:
    """Return text for a cell of a CSV file, without line breaks, that a spreadsheet does not take for a formula.

    Text that starts with one of `= + - @` or their wide forms, even after white space, gets a leading apostrophe, and so does
    text behind a semicolon, which separates cells where a comma is the decimal point. Control characters are escaped.
    """
    shown = _CELL_AFTER_SEMICOLON.sub(r"\1'", one_line(text))
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def check_table(path: Path) -> None:
    """Check a table's kind, and that it can be written, before the work is done.

    Raises:
        UsageError: The file's extension is neither .csv nor .json, it is there already and no such table, or cannot be
            written.
        CapPruneError: The disk is full.
    """
    if path.suffix.lower() not in (".csv", ".json"):
        raise UsageError("a table of captions is a .csv or a .json file", where=path, found=path.suffix or "no ending")
    # a link that the user names says on purpose where the table goes; a file is protected from a typing error
    check_file_place(path, ours=() if path.is_symlink() else _OURS[path.suffix.lower()])


def write_table(path: Path, said: Sequence[Said]) -> None:
    """Write captions to a CSV or JSON file atomically.

    Raises:
        UsageError: The file's extension is neither .csv nor .json.
        CapPruneError: The file cannot be written.
    """
    check_table(path)
    if path.suffix.lower() == ".json":
        rows = [one.as_json() for one in said]
        write_text(path, json.dumps({"schema_version": 1, "captions": rows}, indent=2, ensure_ascii=False) + "\n")
        return
    text = io.StringIO()
    columns = COLUMNS if all(one.familiar is None for one in said) else (*COLUMNS, FAMILIAR)
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(one.as_row() for one in said)
    write_text(path, text.getvalue())


def _storable(facts: dict[str, object]) -> dict[str, object]:
    return {key: shown_name(value) if isinstance(value, str) else value for key, value in facts.items()}
