"""Handle Ctrl-C, SIGTERM, SIGHUP and SIGUSR1, even if a library suppresses the exception.

The handlers raise at once, as Python's own handler does for Ctrl-C. A converter that catches everything, or a callback
from C++, may drop the exception or replace it by its own. (An extension module that is being loaded turns it into an
ImportError.) So the request is stored as well, and raised again at the next line of progress. A command that fails
after a signal counts as stopped, not as failed.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED, TERMINATED = 130, 143

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has only the first two
_requested: int | None = None  # the exit code of the signal received


def stopping_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a command: Ctrl-C with 130, the others with 143.

    SIGHUP is left out if it is ignored, as under `nohup`.
    """
    known = [signal.Signals[name] for name in _ENDING if hasattr(signal, name)]
    return tuple(one for one in known if one.name != "SIGHUP" or signal.getsignal(one) is not signal.SIG_IGN)


def listen() -> None:
    """Install handlers for the signals that end a command."""
    sys.unraisablehook = _report_unraisable
    for number in stopping_signals():
        signal.signal(number, _stop)


def requested() -> int | None:
    """Return the exit code of the signal received; None if there was none."""
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
    """Suppress the traceback of a stop that Python dropped, for example in a weak reference's callback.

    The request is kept.
    """
    if _requested is None or not issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
        sys.__unraisablehook__(unraisable)
