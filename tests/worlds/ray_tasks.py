"""What the tests of Ray ask of its workers, which import this module."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from capprune_runtime.errors import DataError


def tenfold(number: int) -> int:
    return 10 * number


def dies_once(task: tuple[int, str]) -> int:
    number, marks = task
    mark = Path(marks) / str(number)
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def dies(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def complains(number: int) -> int:
    raise DataError("a photo is blue", where=f"photo {number}", expected="red", hint="paint it")
