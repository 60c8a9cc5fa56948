"""`capprune caption --isolated`: the same command in a child process with a limit on memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

# Code of the child. Its first argument is the memory limit.
_CODE = """
import sys
from capprune_runtime.isolation import limit_this_process
limit_this_process(int(sys.argv.pop(1)))
from capprune.cli.app import main
main()
"""


def caption_isolated(photos: Sequence[Path], options: Mapping[str, object], bundle: Path, as_json: bool) -> NoReturn:
    """Run the command without --isolated in a child, and exit with the child's exit code.

    Args:
        photos: Arguments of the command.
        options: Options by name; None for those that were not given.
        bundle: The bundle, for messages and for the memory limit.
        as_json: Whether --json was given.

    Raises:
        BundleError: The child crashed.
    """
    from capprune_runtime.isolation import child, memory_for, raise_if_crashed
    from capprune_runtime.photo_file import MAX_PHOTO_BYTES

    chosen = [part for name, value in options.items() if value is not None for part in (f"--{name}", str(value))]
    memory_bytes = memory_for((bundle.stat().st_size if bundle.exists() else 0) + MAX_PHOTO_BYTES)
    arguments = ["caption", *chosen, *(["--json"] if as_json else []), "--", *map(str, photos)]
    with child(_CODE, [str(memory_bytes), *arguments]) as process:
        code = process.wait()
    if code < 0:
        raise_if_crashed(code, bundle)
    raise SystemExit(code)
