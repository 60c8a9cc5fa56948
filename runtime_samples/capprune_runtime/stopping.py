"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1, so that a library in between cannot swallow them.

The handlers raise at once, as Python's own does for Ctrl-C. But they run wherever the interpreter happens to be, and a
converter that catches everything, or a callback from C++, may drop what they raise or turn it into an error of its own
(an extension module that is being loaded makes an ImportError of it). So the request is kept as well: it is raised again
at the next line of progress, and a command that fails after a signal was stopped: it has not failed.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED, TERMINATED = 130, 143

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has no more than the first two
_requested: int | None = None  # the exit code that a signal asked for


def stopping_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a command: Ctrl-C with 130, the others with 143.

    SIGHUP is left out where it is ignored, as under `nohup`.
    """
    known = [signal.Signals[name] for name in _ENDING if hasattr(signal, name)]
    return tuple(one for one in known if one.name != "SIGHUP" or signal.getsignal(one) is not signal.SIG_IGN)


def listen() -> None:
    """Take over the signals that end a command."""
    sys.unraisablehook = _report_unraisable
    for number in stopping_signals():
        signal.signal(number, _stop)


def requested() -> int | None:
    """The exit code that a signal asked for; None if none came."""
    return _requested


def raise_if_requested() -> None:
    """Stop here if a signal asked for it.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        SystemExit: After SIGTERM, SIGHUP or SIGUSR1.
    """
    if _requested == INTERRUPTED:
        raise KeyboardInterrupt
    if _requested is not None:
        raise SystemExit(_requested)


def _stop(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = INTERRUPTED if number == signal.SIGINT else TERMINATED
    raise_if_requested()


def _report_unraisable(unraisable: UnraisableHookArgs, /) -> None:
    """Print no traceback of a stop that Python dropped: in a weak reference's callback, say. The request is kept."""
    if _requested is None or not issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
        sys.__unraisablehook__(unraisable)
