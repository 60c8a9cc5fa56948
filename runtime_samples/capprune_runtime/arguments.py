"""Command-line arguments of `python -m capprune_runtime`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from capprune_runtime.archive import ARCHIVE
from capprune_runtime.errors import UsageError
from capprune_runtime.formats import FORMATS, RUNTIMES
from capprune_runtime.streams import printable

_GIVEN: Final = "_given"  # key in a namespace: the options that were given


def command_parser(as_json: bool = False) -> argparse.ArgumentParser:
    """Return the parser of all commands.

    Args:
        as_json: Raise a `UsageError` for wrong usage instead of ending the process.
    """
    _Parser.as_json = as_json
    parser = _Parser(prog="capprune_runtime", description="Caption photos with a capprune bundle.")
    commands = parser.add_subparsers(dest="command", required=True)
    caption = commands.add_parser("caption", help="caption photos")
    caption.add_argument("bundle", type=Path, help="the bundle, a folder or packed")
    caption.add_argument("photos", type=Path, nargs="+", metavar="photo", help="photo files, or - for standard input")
    run = commands.add_parser("run", help="caption a folder of photos and measure it")
    run.add_argument("bundle", type=Path, help="the bundle, a folder or packed")
    run.add_argument("photos", type=Path, help="the folder of photos")
    run.add_argument("--limit", type=_count(1), metavar="N", help="use only the first N photos")
    bench = commands.add_parser("bench", help="time bundles on their golden photos")
    bench.add_argument("bundles", type=Path, nargs="+", metavar="bundle", help="a folder or a packed bundle")
    bench.add_argument("--rounds", type=_count(1), default=30, metavar="N", help="timed captions per bundle  [30]")
    bench.add_argument("--warm-up", type=_count(0), default=3, metavar="N", help="untimed rounds before them  [3]")
    bench.add_argument(
        "--cold-loads",
        type=_count(0),
        default=3,
        metavar="N",
        help="number of new processes that load each bundle  [3]",
    )
    bench.add_argument(
        "--max-temperature", type=float, metavar="C", help="temperature in °C below which the rounds begin  [60]"
    )
    bench.add_argument(
        "--cooldown-timeout", type=float, default=60.0, metavar="S", help="longest wait for this temperature in s  [60]"
    )
    verify = commands.add_parser("verify", help="check every file of a bundle")
    verify.add_argument("bundle", type=Path, help="the bundle, a folder or packed")
    doctor = commands.add_parser("doctor", help="show what this device has and lacks")
    doctor.add_argument("--kind", choices=tuple(FORMATS), default="tflite", help="kind of model file  [tflite]")
    archive = commands.add_parser("archive", help="write this program as one file, for other machines")
    archive.add_argument("--out", type=Path, default=Path(ARCHIVE), metavar="FILE", help=f"[{ARCHIVE}]")
    for command in (caption, run, bench):
        command.add_argument("--beam", type=int, metavar="K", help="beam width  [the bundle's own]")
        command.add_argument("--runtime", choices=("auto", *RUNTIMES), default="auto")
        command.add_argument("--threads", type=int, default=1, metavar="N")
    for command in (run, bench):
        command.add_argument("--out", type=_document, metavar="FILE.json", help="write the results document")
        command.add_argument(
            "--stream", action="store_true", help="print a line of JSON for each result when it is ready"
        )
    for command in (caption, run, bench, verify, doctor, archive):
        command.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


class _Parser(argparse.ArgumentParser):
    """Parser that raises a usage error, instead of exiting, where JSON is requested."""

    as_json = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register("action", None, _Once)

    def error(self, message: str) -> NoReturn:
        """Report wrong usage."""
        if self.as_json:
            raise UsageError(message, hint=f"{self.prog} --help")
        super().error(printable(message))


class _Once(argparse.Action):
    """Action that stores a value and refuses repeated options, of which argparse would silently keep the last."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the value of one argument."""
        given: frozenset[str] = getattr(namespace, _GIVEN, frozenset())
        if option_string is not None and self.dest in given:
            parser.error(f"an option is given twice: {option_string}")
        setattr(namespace, self.dest, values)
        setattr(namespace, _GIVEN, given | {self.dest})


def _document(text: str) -> Path:
    """Return the path of a results document, as an argparse type."""
    if not text.lower().endswith(".json"):
        raise argparse.ArgumentTypeError(f"a results document is a .json file, not {text!r}")
    return Path(text)


def _count(least: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers of at least `least`."""

    def count(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is below {least}")
        return number

    count.__name__ = "number"  # argparse prints this name when the text is not a number
    return count
