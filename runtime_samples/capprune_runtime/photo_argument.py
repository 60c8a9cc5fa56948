"""Photos named on a command line: a file, `-` or a pipe, and common mistakes such as URLs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from capprune_runtime.errors import UsageError
from capprune_runtime.photo_file import read_photo_file, read_stream

STDIN = "-"

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.IGNORECASE | re.DOTALL)  # a Path keeps only one of the slashes


def argument_problem(named: Path) -> UsageError | None:
    """Return why a photo named on a command line cannot be read; None if it can be tried."""
    if str(named) == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            return UsageError("there is no photo on standard input", hint="cat photo.jpg | capprune caption -")
        return None
    try:
        named.stat()
    except FileNotFoundError:
        url = _URL.fullmatch(str(named))
        return _no_urls(url[1], url[2]) if url else UsageError("there is no such photo", where=named)
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or error
        return UsageError("a photo cannot be opened", where=_shortened(str(named)), found=found)
    return None


def read_argument(named: Path) -> bytes:
    """Read the file, pipe or standard input that an argument names.

    Raises:
        PhotoError: It cannot be read, or is too large.
    """
    if str(named) == STDIN:
        return read_stream(sys.stdin.buffer, "standard input")
    return read_photo_file(named)


def argument_name(named: Path) -> str:
    """Return the argument's name for messages."""
    return "standard input" if str(named) == STDIN else str(named)


def _no_urls(scheme: str, rest: str) -> UsageError:
    if scheme.lower() == "file":
        return UsageError("URLs are not supported", where=f"{scheme}:///{rest}", hint=f"name the file: /{rest}")
    url = f"{scheme}://{rest}"
    return UsageError(
        "URLs are not supported: photos are read from files or standard input",
        where=url,
        hint=f"curl -sSLf '{url}' | capprune caption -",
    )


def _shortened(name: str) -> str:
    return name if len(os.fsencode(name)) <= 300 else f"{name[:60]}…{name[-30:]} ({len(os.fsencode(name))} bytes)"
