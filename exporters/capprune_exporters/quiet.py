"""Suppress the terminal output of converters."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide a converter's progress lines, log records and warnings from the terminal.

    Native code writes directly to the file descriptors, so these are redirected as well.
    """
    saved = {number: os.dup(number) for number in (1, 2)}
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():  # noqa: PTH123 - a descriptor is needed
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            for number in saved:
                os.dup2(nowhere.fileno(), number)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
        finally:
            logging.disable(level)
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)
