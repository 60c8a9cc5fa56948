"""What was said of photos: how sure the model was, and tables of it all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune_runtime.atomic import check_file_place, write_text
from capprune_runtime.caption.captioner import Caption
from capprune_runtime.caption.confidence import NOT_SURE, is_unsure, mean_log_probability
from capprune_runtime.errors import CapPruneError, UsageError
from capprune_runtime.streams import printable, shown_name

_FORMULA = ("=", "+", "-", "@")  # how spreadsheets start one
COLUMNS = ("photo", "caption", "mean_log_probability", "low_confidence", "error")


@dataclass(frozen=True)
class Said:
    """One photo and what came of it.

    Attributes:
        photo: Its path as given.
        caption: None if it could not be captioned.
        low_below: Mean log-probability a word below which the bundle calls a caption unsure; None if it was never measured.
        error: Why there is no caption.
        warning: What was wrong with a photo that was captioned all the same.
    """

    photo: Path
    caption: Caption | None
    low_below: float | None
    error: CapPruneError | None
    warning: str | None = None

    @property
    def name(self) -> str:
        """The photo's name as any file can hold it: bytes that are no UTF-8 are escaped."""
        return shown_name(self.photo)

    @property
    def marked(self) -> str | None:
        """The caption as people read it, marked where the model was not sure; None where there is none."""
        return None if self.caption is None else self.caption.text + (NOT_SURE if self.unsure else "")

    @property
    def unsure(self) -> bool | None:
        """Whether the caption may well be wrong; None where the bundle does not tell."""
        return None if self.caption is None else is_unsure(self.caption, self.low_below)

    def as_json(self) -> dict[str, Any]:
        """For a JSON document."""
        if self.caption is None:
            return {"photo": self.name, **(_storable(self.error.as_json()) if self.error else {})}
        sure = {"mean_log_probability": mean_log_probability(self.caption), "low_confidence": self.unsure}
        warning = {} if self.warning is None else {"warning": shown_name(self.warning)}
        return {"photo": self.name, **self.caption.as_json(), **sure, **warning}

    def as_row(self) -> dict[str, object]:
        """For a line of a table."""
        said = self.caption
        return dict(
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
    """Return text for a cell of a CSV file: a spreadsheet must not take it for a formula, and no line ends in it.

    Text that starts with one of `= + - @`, also behind white space, gets a leading apostrophe. Control characters are spelled
    out.
    """
    shown = printable(text).replace("\n", "\\n").replace("\t", "\\t")
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def check_table(path: Path) -> None:
    """Refuse a table of an unknown kind, or in a place that cannot be written to, before the work is done.

    Raises:
        UsageError: If the file's ending is neither .csv nor .json, or its place cannot be written to.
        CapPruneError: If the disk is full.
    """
    if path.suffix.lower() not in (".csv", ".json"):
        raise UsageError("a table of captions is a .csv or a .json file", where=path, found=path.suffix or "no ending")
    check_file_place(path)


def write_table(path: Path, said: Sequence[Said]) -> None:
    """Write captions to a CSV or JSON file, whole or not at all.

    Raises:
        UsageError: If the file's ending is neither.
        CapPruneError: If it cannot be written.
    """
    check_table(path)
    if path.suffix.lower() == ".json":
        rows = [one.as_json() for one in said]
        write_text(path, json.dumps({"schema_version": 1, "captions": rows}, indent=2, ensure_ascii=False) + "\n")
        return
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(one.as_row() for one in said)
    write_text(path, text.getvalue())


def _storable(facts: dict[str, object]) -> dict[str, object]:
    return {key: shown_name(value) if isinstance(value, str) else value for key, value in facts.items()}
