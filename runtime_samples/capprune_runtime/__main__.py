"""`python -m capprune_runtime`: caption photos with a bundle, or verify one, on any device that has Python.

Results go to stdout (with `--json` as one JSON document), messages to stderr. Exit codes: 0 ok, 2 usage,
4 a photo, 5 a bundle, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from capprune_runtime.captioner import Captioner
from capprune_runtime.errors import CapPruneError, UsageError
from capprune_runtime.interpreter import RUNTIMES
from capprune_runtime.photo import read_photo
from capprune_runtime.verify import verify_bundle

SCHEMA_VERSION = 1  # of the JSON documents
_INTERRUPTED = 130
# Ctrl-C raises at once, but native code in between may drop what a handler raises: then the next photo stops the command.
_interrupted = threading.Event()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are those of the process when not given."""
    options = _parser().parse_args(arguments)
    try:
        document, exit_code = (_caption if options.command == "caption" else _verify)(options)
    except CapPruneError as error:
        _complain(error)
        document, exit_code = error.as_json(), error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    if options.json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2))
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="capprune_runtime", description="Caption photos with a capprune bundle.")
    commands = parser.add_subparsers(dest="command", required=True)
    caption = commands.add_parser("caption", help="say what is on photos")
    caption.add_argument("bundle", type=Path, help="the bundle's folder")
    caption.add_argument("photos", type=Path, nargs="+", metavar="photo")
    caption.add_argument("--beam", type=int, metavar="K", help="width of the beam; without it, the bundle's own")
    caption.add_argument("--runtime", choices=("auto", *RUNTIMES), default="auto")
    caption.add_argument("--threads", type=int, default=1, metavar="N")
    verify = commands.add_parser("verify", help="check every file of a bundle")
    verify.add_argument("bundle", type=Path, help="the bundle's folder")
    for command in (caption, verify):
        command.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _caption(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Caption every photo that can be read; the exit code is that of the first that cannot."""
    for photo in options.photos:
        if not photo.is_file():
            raise UsageError("there is no such photo", where=photo)
    bundle = verify_bundle(options.bundle)
    captioner = Captioner(bundle, options.runtime, options.threads)
    rows: list[dict[str, Any]] = []
    exit_code = 0
    for photo in options.photos:
        if _interrupted.is_set():
            raise KeyboardInterrupt
        try:
            row = _caption_row(captioner, photo, options.beam)
        except CapPruneError as error:
            _complain(error)
            row, exit_code = error.as_json(), exit_code or error.exit_code
        rows.append({"photo": _printable(photo), **row})
        if not options.json and "caption" in row:
            print(row["caption"] if len(options.photos) == 1 else f"{rows[-1]['photo']}\t{row['caption']}")
    return {"bundle": str(options.bundle), "runtime": captioner.runtime, "captions": rows}, exit_code


def _caption_row(captioner: Captioner, photo: Path, beam: int | None) -> dict[str, Any]:
    return captioner.caption(read_photo(photo, captioner.bundle.manifest.preprocessing.size), beam).as_json()


def _verify(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    bundle = verify_bundle(options.bundle)
    manifest = bundle.manifest
    size_bytes = sum(entry.size_bytes for entry in manifest.files.values())
    document = {
        "bundle": str(options.bundle),
        "verified": True,
        "files": len(manifest.files),
        "size_bytes": size_bytes,
        "manifest": manifest.as_json(),
    }
    if not options.json:
        model = manifest.model
        print(
            f"{options.bundle} is as it was written: {len(manifest.files)} files, {size_bytes:,} bytes; "
            f"{model.family} {model.cell}, {model.vocabulary:,} words, {manifest.pruning.sparsity:.2%} sparse"
        )
    return document, 0


def _complain(error: CapPruneError) -> None:
    print(_printable(error), file=sys.stderr)


def _printable(value: object) -> str:
    """Text for a terminal: what a hostile file name or key brings in control characters is spelled out."""
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in str(value)
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def _run() -> int:
    signal.signal(signal.SIGINT, _interrupt)
    try:
        exit_code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return exit_code


if __name__ == "__main__":
    sys.exit(_run())
