"""Stopping a long loop between two steps, so that its state can be saved whole.

SIGTERM ends a process, SIGHUP tells it that its terminal is gone, and SLURM sends SIGUSR1 (`--signal`) before it takes a
machine away. All three save the state and end with exit code 143.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from capprune_runtime.stopping import TERMINATED, stopping_signals


class StopRequest:
    """What the user or the machine has asked for since the loop began."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second Ctrl-C ends at once."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def obey(self) -> None:
        """End the command as the signal asks: Ctrl-C with 130, all others with 143."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(TERMINATED)


@contextmanager
def postponed_signals() -> Iterator[StopRequest]:
    """Hold back the signals that end a command while the block runs; the block asks `StopRequest.signal` when it suits."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in stopping_signals()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
