"""`capprune report`: write one page from runs, bundles and their measurements."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from capprune.api.pages import DEFAULT_OUT, report
from capprune.cli.console import Place, echo, emit, given, json_option, out_file_option
from capprune.cli.progress import TerminalProgress


@click.command()
@click.argument("sources", nargs=-1, required=True, type=Place(), metavar="RUN|BUNDLE|RESULTS...")
@click.option("--data", type=Place(file_okay=False), help="Photos and captions to show on the page.")
@click.option("--split", default="test", show_default=True, help="Split of the photos.")
@click.option("--photos", type=click.IntRange(0, 100), default=8, show_default=True, help="Number of photos to show.")
@click.option("--title", help="Title of the page.  [default: the run's or the bundle's name]")
@out_file_option(
    default=Path(DEFAULT_OUT),
    show_default=True,
    help="The page; an existing file is replaced.",
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
    """Write one page from runs, bundles and results.

    Takes the pruned run, the dense run, the bundle, and the JSON documents of `validate` and `bench`, in any order. Each is
    recognised by its content. The foot of the page lists what is missing. The page is one HTML file without scripts that
    loads nothing from the network.

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
    """Refuse --split without a data set, because the page then shows the bundle's own photos."""
    from capprune_runtime.errors import UsageError

    if data is None and given("split"):
        raise UsageError("this option chooses photos of a data set", where="--split", expected="--data FOLDER")
