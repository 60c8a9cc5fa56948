"""Stops a long loop between two steps, so that its complete state can be saved.

SIGTERM ends a process, and SIGHUP means that its terminal was closed. SLURM sends SIGUSR1 (`--signal`) before it
reclaims a machine. After each of them the state is saved and the command ends with exit code 143.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from capprune_runtime.stopping import TERMINATED, stopping_signals


class StopRequest:
    """The signal that arrived since the loop began."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Store the first signal; a second Ctrl-C ends the process at once."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def obey(self) -> None:
        """End the command as the signal asks: Ctrl-C with exit code 130, all others with 143."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(TERMINATED)


@contextmanager
def postponed_signals() -> Iterator[StopRequest]:
    """Postpone the signals that end a command while the block runs; the block checks `StopRequest.signal`."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in stopping_signals()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
