"""Stdout and stderr of a command when they are closed, full, ASCII only, or a closed pipe."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from capprune_runtime.errors import CapPruneError
from capprune_runtime.memory import is_short

NOBODY_READS = 141  # exit code that a shell reports for a program ended by a closed pipe: 128 + SIGPIPE

_dropped, _clean = False, False
_GONE = frozenset({errno.EPIPE, errno.EBADF, errno.ECONNRESET})


class _StderrThatMayFail(io.TextIOWrapper):
    """A stderr that drops messages it cannot write. The exit code still reports the failure."""

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            super().flush()


def prepare() -> None:
    """Make both streams accept any text; called once at the start of the process.

    Characters that the encoding lacks are written as an escape such as `\\xe9`.
    """
    if sys.stdout is None or not _is_open(1):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - open as long as the process
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None or not _is_open(2):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    else:
        raw = io.FileIO(2, "wb", closefd=False)
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        sys.stderr = _StderrThatMayFail(raw, encoding, "backslashreplace", write_through=True)


def finish(exit_code: int) -> int:
    """Flush stdout at the end of a process.

    Returns:
        The exit code; `NOBODY_READS` or 1 instead of 0 if the output could not be written.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        return failed_output(error, exit_code)
    return exit_code


def nothing_to_clean_up() -> None:
    """State that the process holds no temporary files or child processes.

    `leave` then skips the cleanup of Python and the interpreters, which takes about 0.1 s.
    """
    global _clean
    _clean = True


def leave(exit_code: int) -> NoReturn:
    """End the process.

    The libraries' cleanup is skipped after `nothing_to_clean_up`, and where memory has run out: some libraries then
    wait forever for threads that never started.
    """
    if _clean or is_short():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def failed_output(error: OSError, exit_code: int = 0) -> int:
    """Convert an error of writing to stdout into an exit code, and stop writing to stdout.

    Args:
        error: The exception raised by the write.
        exit_code: Exit code of the command.
    """
    drop_output()
    if is_gone(error):
        return exit_code or NOBODY_READS
    print(f"error: {stdout_error(error)}", file=sys.stderr)
    return exit_code or 1


def drop_output() -> None:
    """Discard everything written to stdout from now on, including buffered output."""
    global _dropped
    _dropped = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):
        os.dup2(nowhere, 1)
    os.close(nowhere)
    with suppress(OSError, ValueError):
        sys.stdout.flush()


def is_dropped() -> bool:
    """Return whether stdout is discarded."""
    return _dropped


def stdout_error(error: OSError) -> CapPruneError:
    """Return the error for a stdout that cannot be written."""
    what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "the output cannot be written"
    return CapPruneError(what, where="standard output", found=error.strerror)


def is_gone(error: OSError) -> bool:
    """Return whether a write error means that the pipe was closed."""
    return isinstance(error, BrokenPipeError) or error.errno in _GONE


@contextmanager
def output_may_end() -> Iterator[None]:
    """Let a command continue when its stdout pipe is closed or its disk is full.

    For commands that also write a file, which should be finished. A full disk is reported once.
    """
    try:
        yield
    except OSError as error:
        drop_output()
        if not is_gone(error):
            print(f"error: {stdout_error(error)}", file=sys.stderr)


def printable(value: object) -> str:
    """Return text for a terminal: control characters and bytes that are not UTF-8 are escaped."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]
        for character in str(value)
    )


def one_line(value: object) -> str:
    """Return text for one field of a line: like `printable`, and line feeds and tabs are escaped too."""
    return printable(value).replace("\n", "\\n").replace("\t", "\\t")


def shown_name(path: str | os.PathLike[str]) -> str:
    """Return a file name as text for any file or document; bytes that are not UTF-8 become `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True
