"""What was said of photos: how sure the model was, and tables of it all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune_runtime import strict_json
from capprune_runtime.atomic import write_text
from capprune_runtime.bundle.manifest import QUALITY
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.captioner import Caption
from capprune_runtime.errors import BundleError, CapPruneError, DataError, UsageError
from capprune_runtime.measure.results import SaidPhoto

PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
COLUMNS = ("photo", "caption", "mean_log_probability", "low_confidence", "error")


@dataclass(frozen=True)
class Said:
    """One photo and what came of it.

    Attributes:
        photo: Its path as given.
        caption: None if it could not be captioned.
        low_below: Mean log-probability a word below which the bundle calls a caption unsure; None if it was never measured.
        error: Why there is no caption.
    """

    photo: Path
    caption: Caption | None
    low_below: float | None
    error: CapPruneError | None

    @property
    def unsure(self) -> bool | None:
        """Whether the caption may well be wrong; None where the bundle does not tell."""
        if self.caption is None or self.low_below is None:
            return None
        return mean_log_probability(self.caption) < self.low_below

    def as_json(self) -> dict[str, Any]:
        """For a JSON document."""
        if self.caption is None:
            return {"photo": str(self.photo), **(self.error.as_json() if self.error else {})}
        sure = {"mean_log_probability": mean_log_probability(self.caption), "low_confidence": self.unsure}
        return {"photo": str(self.photo), **self.caption.as_json(), **sure}

    def as_row(self) -> dict[str, object]:
        """For a line of a table."""
        said = self.caption
        return dict(
            zip(
                COLUMNS,
                (
                    str(self.photo),
                    said.text if said else "",
                    f"{mean_log_probability(said):.4f}" if said else "",
                    "" if self.unsure is None else str(self.unsure).lower(),
                    self.error.what if self.error else "",
                ),
                strict=True,
            )
        )


def mean_log_probability(caption: Caption | SaidPhoto) -> float:
    """Nats a word, `<end>` counted where the model said it."""
    return caption.log_probability / max(1, len(caption.tokens) + caption.finished)


def confidence_of(bundle: Bundle) -> float | None:
    """The mean log-probability below which this bundle's captions are marked; None if none was measured for it.

    `capprune validate --record` measures it and writes it into quality.json.

    Raises:
        BundleError: If quality.json is broken.
    """
    quality = strict_json.parse(bundle.files.get(QUALITY, b"{}"))
    confidence = quality.get("confidence") if isinstance(quality, dict) else None
    if confidence is None:
        return None
    limit = confidence.get("low_below") if isinstance(confidence, dict) else "no tree"
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
        raise BundleError(
            "the limit of unsure captions is no number",
            where=f"{QUALITY}: confidence.low_below",
            found=repr(limit)[:60],
        )
    return None if limit is None else float(limit)


def photos_in(folder: Path) -> list[Path]:
    """All photos of a folder and of those in it, by name.

    Raises:
        DataError: If there is none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_ENDINGS and path.is_file())
    if not found:
        raise DataError(
            "there is no photo in this folder", where=folder, expected=f"files ending in {', '.join(PHOTO_ENDINGS)}"
        )
    return found


def check_table(path: Path) -> None:
    """Refuse a table of an unknown kind before the work is done.

    Raises:
        UsageError: If the file's ending is neither .csv nor .json.
    """
    if path.suffix.lower() not in (".csv", ".json"):
        raise UsageError("a table of captions is a .csv or a .json file", where=path, found=path.suffix or "no ending")


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
