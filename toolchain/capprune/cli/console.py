"""What every command shares: results on stdout, progress on stderr, the same options under the same names."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from capprune_runtime import stopping

SCHEMA_VERSION = 1

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
threads_option = click.option(
    "--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads of the interpreter."
)
cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CAPPRUNE_CACHE",
    help="Folder for computed features.  [default: ~/.cache/capprune]",
)


def out_option(what: str) -> Callable[[Command], Command]:
    """The `--out` of a command that makes a folder."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        required=True,
        help=f"Folder of the {what}, to be made.",
    )


def say(message: str) -> None:
    """A line of progress; a command that was asked to stop stops here at the latest."""
    stopping.raise_if_requested()
    click.echo(message, err=True)


def emit(document: dict[str, Any], as_json: bool, human: Callable[[], None]) -> None:
    """The result: one JSON document, or what `human` prints."""
    if as_json:
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2))
    else:
        human()


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr with the time left; plain lines where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield _milestones(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _milestones(label: str) -> Callable[[int, int], None]:
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        quarter = 4 * done // max(total, 1)
        if quarter > told:
            told = quarter
            say(f"{label}: {done} of {total}")

    return tell


def table(title: str, columns: list[str], rows: list[list[str]], note: str | None = None) -> None:
    """A table on stdout; every column but the first is aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title, title_justify="left", caption=note, caption_justify="left")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        grid.add_row(*row)
    console = Console()
    console = console if console.is_terminal else Console(width=140)
    console.print(grid)
