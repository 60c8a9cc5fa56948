"""The end of a benchmark that prints what it measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from capprune_runtime.errors import CapPruneError

Document = dict[str, Any]


def print_measured(measure: Callable[[], Document], show: Callable[[Document], None], *, as_json: bool) -> None:
    """Measure, and print the document.

    Args:
        measure: Returns the document.
        show: Prints it for people.
        as_json: Print it as JSON instead.

    Raises:
        SystemExit: Something of the user's is wrong. The message is printed, and the exit code is that of the error.
    """
    try:
        document = measure()
    except CapPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    if as_json:
        print(json.dumps(document, indent=1))
    else:
        show(document)
