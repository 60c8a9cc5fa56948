"""`capprune`, also as `python -m capprune`: takes over Ctrl-C before anything else is imported."""

import os
import signal
from types import FrameType
from typing import NoReturn


def _stop_at_once(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)  # nothing is begun yet


def main() -> NoReturn:
    """Entry point of the console script."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_at_once)  # until the command's own handlers are loaded
    from capprune.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
