"""`capprune report`: one page from runs, bundles and what was measured of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from capprune.cli.console import Place, echo, emit, given, json_option, out_file_option, say

DEFAULT_OUT = Path("report.html")


@click.command()
@click.argument("sources", nargs=-1, required=True, type=Place(), metavar="RUN|BUNDLE|RESULTS...")
@click.option("--data", type=Place(file_okay=False), help="Photos and captions, to show some of them.")
@click.option("--split", default="test", show_default=True, help="Which photos.")
@click.option("--photos", type=click.IntRange(0, 100), default=8, show_default=True, help="How many are shown.")
@click.option("--title", help="Of the page.  [default: the run's or the bundle's name]")
@out_file_option(
    default=DEFAULT_OUT,
    show_default=True,
    help="The page, written over.",
)
@json_option
def command(
    sources: tuple[Path, ...],
    data: Path | None,
    split: str,
    photos: int,
    title: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Put runs, bundles and results on one page.

    Give in any order what there is: the pruned run, the dense one, the bundle, and the JSON documents of `validate` and
    `bench`. Each is recognised by what it is; what is not given is named at the foot of the page. The page is one HTML file
    without scripts that fetches nothing.

    \b
    Example:
      capprune validate bundles/sparse --data flickr8k --reference runs/sparse --json > sparse.json
      capprune bench bundles/sparse --baselines --json > bench.json
      capprune report runs/dense runs/sparse bundles/sparse sparse.json bench.json --data flickr8k
    """
    refuse_without_data(data)
    document = report(sources, out, data=data, split=split, photos=photos, title=title, command=sys.argv[1:])
    emit(document, as_json, lambda: echo(f"written: {out}, {document['bytes']:,} bytes"))


def refuse_without_data(data: Path | None) -> None:
    """Refuse a split where there is no data set; the page then shows the bundle's own photos."""
    from capprune_runtime.errors import UsageError

    if data is None and given("split"):
        raise UsageError("this option chooses photos of a data set", where="--split", expected="--data FOLDER")


def report(
    sources: tuple[Path, ...],
    out: Path,
    *,
    data: Path | None = None,
    split: str = "test",
    photos: int = 8,
    title: str | None = None,
    command: list[str] | None = None,
) -> dict[str, Any]:
    """Write the page.

    Args:
        sources: Runs, bundles and results documents.
        out: Of the page.
        data: Photos with captions.
        split: Of the data.
        photos: How many are shown.
        title: Of the page.
        command: The command that makes it, as the page tells it.

    Returns:
        Where it is and how large.

    Raises:
        MissingExtra: matplotlib or Jinja2 is not installed.
        UsageError: A source is not there, or none that a page is made from.
    """
    from capprune.report import require_extra

    require_extra()
    from capprune.report.build import build_report
    from capprune.report.sources import read_sources
    from capprune_runtime.atomic import write_text

    say("reading")
    read = read_sources(sources)
    say("writing the page")
    shown = command or ["report", *map(str, sources), "--out", str(out)]
    write_text(out, build_report(read, data=data, split=split, photos=photos, command=shown, title=title))
    return {"report": str(out), "bytes": out.stat().st_size}
