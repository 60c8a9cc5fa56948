"""The options of commands that write generated captions as a data set: which captions are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--min-words",
        type=click.IntRange(1),
        default=3,
        show_default=True,
        help="Minimum number of words of a caption.",
    ),
    click.option(
        "--max-words",
        type=click.IntRange(1),
        default=25,
        show_default=True,
        help="Maximum number of words of a caption.",
    ),
    click.option(
        "--min-confidence",
        type=click.FloatRange(0, 1),
        default=0.0,
        help="Minimum geometric mean probability of a token.",
    ),
    click.option(
        "--keep", default="100%", show_default=True, help="Share of the captions to keep, the most confident first."
    ),
)


def caption_filters(command: Command) -> Command:
    """Add `--min-words`, `--max-words`, `--min-confidence` and `--keep` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
