"""Reports: one HTML page from runs, bundles and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune.api.arguments import Place, given_path, needs, optional_path
from capprune.training.progress import SILENT, Progress
from capprune_runtime.atomic import check_file_place, write_text

DEFAULT_OUT = "report.html"


@dataclass(frozen=True)
class Report:
    """A written page.

    Attributes:
        page: Path of the file.
        size_bytes: Size of the file in bytes.
    """

    page: Path
    size_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune report --json` prints."""
        return {"report": str(self.page), "bytes": self.size_bytes}


@needs("report")
def report(
    sources: Sequence[Place],
    *,
    out: Place = DEFAULT_OUT,
    data: Place | None = None,
    split: str = "test",
    photos: int = 8,
    title: str | None = None,
    command: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Write one HTML page from runs, bundles and results. It has no scripts and loads nothing from the network.

    Args:
        sources: Runs, bundles, and the JSON documents of `validate` and `bench`, in any order.
        out: The page; an existing file is replaced.
        data: Photos and captions to show on the page.
        split: Split of `data`.
        photos: Number of photos to show.
        title: Title of the page; the name of the run or the bundle by default.
        command: The command that the page shows as its origin.
        progress: Receives progress messages.

    Raises:
        UsageError: A source does not exist, or a page cannot be made from it.
        MissingExtra: matplotlib or Jinja2 is not installed.
    """
    from capprune.reporting import require_extra

    require_extra()
    from capprune.reporting.build import build_report
    from capprune.reporting.page import page_start
    from capprune.reporting.sources import read_sources

    page = given_path(out)
    check_file_place(page, ours=(page_start(),))
    progress.say("reading")
    read = read_sources(tuple(map(given_path, sources)))
    progress.say("writing the page")
    shown = list(command) if command else ["report", *map(str, map(given_path, sources)), "--out", str(page)]
    write_text(
        page, build_report(read, data=optional_path(data), split=split, photos=photos, command=shown, title=title)
    )
    return Report(page, page.stat().st_size)
