"""Entry point of `capprune` and `python -m capprune`; handles Ctrl-C before anything else is imported."""

import _signal as signal  # type: ignore[import-not-found]  # the interpreter's own part of `signal`, which would load enum first
import os

TYPE_CHECKING = False  # not imported from typing, which is slow to load
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def _stop_at_once(number: int, frame: "FrameType | None") -> "NoReturn":
    os.write(2, b"interrupted\n")
    os._exit(128 + number)  # no work has begun


def _listen() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_at_once)  # until the command's own handlers are loaded


def main() -> "NoReturn":
    """Entry point of the console script."""
    _listen()
    from capprune.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
