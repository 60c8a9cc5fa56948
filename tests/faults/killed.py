"""A command that is killed with `kill -9` at random moments, and started again until it has ended."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

EARLIEST = 0.4  # share of a whole run; before it a command still imports


def capprune(*arguments: object, timeout_s: float | None = None, environment: dict[str, str] | None = None) -> int:
    """Run a command in a process group of its own; -9 where it was killed after `timeout_s`."""
    command = [sys.executable, "-m", "capprune", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )
    with process:
        try:
            output, _ = process.communicate(timeout=timeout_s if timeout_s is not None else 300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            assert timeout_s is not None, f"{command} takes too long"
            return -signal.SIGKILL
    assert process.returncode == 0, output
    return process.returncode


def kill_again_and_again(
    arguments: Sequence[object],
    kills: int,
    *,
    seconds: float,
    seed: int,
    fresh: Callable[[], None],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Kill a command at random moments, and run it to its end.

    Args:
        arguments: Of the command.
        kills: How often.
        seconds: What a whole run takes.
        seed: Of the moments.
        fresh: Takes the output of a run that ended before its kill away.
        check: What holds after every kill.
    """
    moments, done, runs = random.Random(seed), 0, 0
    while done < kills:
        runs += 1
        assert runs < 5 * kills + 5, "the moments come after the end of the runs"
        moment = moments.uniform(EARLIEST * seconds, seconds)
        if capprune(*arguments, timeout_s=moment) == 0:
            seconds *= 0.9  # the machine is quicker now
            fresh()
            continue
        done += 1
        check()
    capprune(*arguments)


def timed(*arguments: object) -> float:
    """The seconds that a command takes."""
    began = time.monotonic()
    capprune(*arguments)
    return time.monotonic() - began


def contents(place: Path) -> dict[str, bytes]:
    """A file, or the files of a folder, by name; no leftovers among them."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    assert not [path for path in (place.parent, *place.parent.rglob("*")) if path.name.endswith(".partial")]
    return {str(path.relative_to(place.parent)): path.read_bytes() for path in files}
