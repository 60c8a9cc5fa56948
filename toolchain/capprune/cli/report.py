"""`capprune report`: one page from runs, bundles and what was measured of them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from capprune.api.pages import DEFAULT_OUT, report
from capprune.cli.console import Place, echo, emit, given, json_option, out_file_option
from capprune.cli.progress import TerminalProgress


@click.command()
@click.argument("sources", nargs=-1, required=True, type=Place(), metavar="RUN|BUNDLE|RESULTS...")
@click.option("--data", type=Place(file_okay=False), help="Photos and captions, to show some of them.")
@click.option("--split", default="test", show_default=True, help="Which photos.")
@click.option("--photos", type=click.IntRange(0, 100), default=8, show_default=True, help="How many are shown.")
@click.option("--title", help="Title of the page.  [default: the run's or the bundle's name]")
@out_file_option(
    default=Path(DEFAULT_OUT),
    show_default=True,
    help="The page, replaced if it is there.",
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
    page = report(
        sources,
        out=out,
        data=data,
        split=split,
        photos=photos,
        title=title,
        command=sys.argv[1:],
        progress=TerminalProgress(),
    )
    emit(page.as_json(), as_json, lambda: echo(f"written: {out}, {page.size_bytes:,} bytes"))


def refuse_without_data(data: Path | None) -> None:
    """Refuse a split where there is no data set; the page then shows the bundle's own photos."""
    from capprune_runtime.errors import UsageError

    if data is None and given("split"):
        raise UsageError("this option chooses photos of a data set", where="--split", expected="--data FOLDER")
