"""Shared by all commands: results on stdout, progress on stderr, and common options with the same names."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from capprune.tables import table as table
from capprune_runtime import stopping
from capprune_runtime.atomic import check_file_place, check_folder_place
from capprune_runtime.streams import printable

SCHEMA_VERSION = 1
CLEAR = "\r\x1b[K"  # clears the current line of a terminal

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
threads_option = click.option(
    "--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads of the interpreter."
)

on_option = click.option(
    "--on",
    metavar="ray[:ADDRESS]",
    help="Run on a Ray cluster; without an address, on a local cluster of this machine.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Number of parallel processes.  [default: 1; with --on ray: all processors]",
)


class Place(click.Path):
    """A path on a command line. Expands a `~` that the shell did not expand, and refuses empty paths."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay, dir_okay=dir_okay)

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert an argument to a path."""
        text = os.fspath(value)
        if not text:
            self.fail("a path must not be empty", param, ctx)
        return super().convert(os.path.expanduser(text), param, ctx)  # noqa: PTH111 - "~" alone and "~/x", no others


cache_option = click.option(
    "--cache",
    type=Place(file_okay=False),
    envvar="CAPPRUNE_CACHE",
    help="Folder for computed features.  [default: ~/.cache/capprune]",
)


def given(name: str) -> bool:
    """Return whether the user set a parameter of the running command."""
    context = click.get_current_context()
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def out_option(what: str, *, new: bool = False, required: bool = True) -> Callable[[Command], Command]:
    """Return the `--out` option of a command that makes a folder. Checks before any work that it can be written.

    Args:
        what: Content of the folder, for the help text.
        new: Whether the folder must be new or empty.
        required: Whether the command always makes the folder.
    """

    def check(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
        if value is not None:
            check_folder_place(value, new=new)
        return value

    return click.option(
        "--out",
        type=Place(file_okay=False),
        required=required,
        callback=check,
        help=f"Folder for the {what}.",
    )


def out_file_option(*, help: str, **options: Any) -> Callable[[Command], Command]:
    """Return the `--out` option of a command that writes a file. Checks before any work that it can be written."""

    def check(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
        if value is not None:
            check_file_place(value)
        return value

    return click.option("--out", type=Place(dir_okay=False), callback=check, help=help, **options)


def say(message: str) -> None:
    """Print a line of progress. A command that received a stop signal stops here at the latest."""
    stopping.raise_if_requested()
    clear = CLEAR if message.startswith(CLEAR) else ""
    click.echo(clear + printable(message.removeprefix(CLEAR)), err=True)


def echo(text: str) -> None:
    """Print a line of the result."""
    click.echo(printable(text))


def emit(document: dict[str, Any], as_json: bool, human: Callable[[], None]) -> None:
    """Print the result: one JSON document, or the output of `human`."""
    if as_json:
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2))
    else:
        human()


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar with the remaining time on stderr; print plain lines if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield _milestones(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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
