"""Read what a device answers, with limits on bytes, lines and seconds.

A device may be broken or hostile: it may send endless text, nothing at all, or JSON of absurd values. All of that is a
`DeviceError` here. Only `ask` and `lines` run the programs `ssh`, `sftp` and `adb`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Final

from capprune_runtime import strict_json, typed_json
from capprune_runtime.errors import BundleError, DeviceError
from capprune_runtime.measure.doctor import Equipment
from capprune_runtime.measure.journal import Line, line_of
from capprune_runtime.measure.plausible import first_fault
from capprune_runtime.typed_json import Problem

ANSWER_BYTES: Final = 1 << 20  # most that a command may print
MESSAGE_BYTES: Final = 1 << 16  # of stderr that is kept; the rest is read and dropped
RUN_BYTES, PHOTO_BYTES = 8 << 20, 1 << 15  # most of a run's output: in all, and for each photo; lines and document
SPARE_LINES, LINES_A_PHOTO = 10_000, 3  # most lines: a photo is sent again after a lost link, libraries may print some
MOST_DIGITS: Final = 15  # of a number of kibibytes

_CHUNK = 1 << 16
_OUT, _ERR = 0, 1


def run_bytes(photos: int) -> int:
    """Return the most bytes that a device may send about this number of photos or rounds."""
    return RUN_BYTES + PHOTO_BYTES * photos


def run_lines(photos: int) -> int:
    """Return the most lines that a device may send about this number of photos or rounds."""
    return SPARE_LINES + LINES_A_PHOTO * photos


def ask(
    command: Sequence[str],
    where: str,
    *,
    seconds: float,
    most_bytes: int = ANSWER_BYTES,
    stdin: str = "",
    silent: type[DeviceError] = DeviceError,
    hint: str | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; the caller checks its exit code.

    Args:
        command: The program and its arguments.
        where: The device's name, for messages.
        seconds: Time limit.
        most_bytes: Most bytes on stdout.
        stdin: Its standard input.
        silent: The class of the error when time is over.
        hint: What to try then.

    Raises:
        DeviceError: It takes too long or prints too much.
    """
    out, complaints = bytearray(), bytearray()
    clock = _Clock(seconds)
    with _started(command, stdin) as process:
        try:
            for stream, chunk in _chunks(process, clock):
                if stream == _ERR:
                    complaints += chunk[: MESSAGE_BYTES - len(complaints)]
                    continue
                out += chunk
                if len(out) > most_bytes:
                    raise too_much(where, most_bytes)
            code = process.wait(max(0.0, clock.left_s))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise silent(
                "the device does not answer", where=where, found=f"no end in {seconds:g} s", hint=hint
            ) from None
    return subprocess.CompletedProcess(command, code, bytes(out), bytes(complaints))


def ask_text(command: Sequence[str], where: str, **limits: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as `ask` does, and return what it prints as text."""
    done = ask(command, where, **limits)
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def lines(
    command: Sequence[str],
    where: str,
    *,
    silence_s: float,
    photos: int,
    ended: Callable[[int, str], None],
) -> Iterator[bytes]:
    """Run a program and yield the lines of its stdout as they arrive.

    Args:
        command: The program and its arguments.
        where: The device's name, for messages.
        silence_s: Longest time without a line.
        photos: Number of photos or rounds; see `run_bytes` and `run_lines`.
        ended: Called with the exit code and stderr at the end.

    Raises:
        DeviceError: It is silent for too long or prints too much.
    """
    line, complaints, total, count = bytearray(), bytearray(), 0, 0
    most_bytes, most_lines = run_bytes(photos), run_lines(photos)
    clock = _Clock(silence_s)
    with _started(command, "") as process:
        try:
            for stream, chunk in _chunks(process, clock):
                if stream == _ERR:
                    complaints += chunk[: MESSAGE_BYTES - len(complaints)]
                    continue
                total += len(chunk)
                if total > most_bytes:
                    raise too_much(where, most_bytes)
                line += chunk
                if b"\n" in chunk:
                    *whole, rest = bytes(line).split(b"\n")
                    line, count = bytearray(rest), count + len(whole)
                    if count > most_lines:
                        raise too_much(where, most_lines, "lines")
                    yield from whole
                    clock.restart()  # without the time that the caller took
            code = process.wait(silence_s)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise DeviceError("the device does not answer", where=where, found=f"no line for {silence_s:g} s",
                              hint="run the same command again, which resumes") from None  # fmt: skip
    if line:
        yield bytes(line)
    ended(code, complaints.decode(errors="replace"))


def wait_bounded(process: subprocess.Popen[bytes], says: IO[bytes], where: str, seconds: float) -> int:
    """Wait for a process whose output goes to a file, because a part of it stays in the background.

    Raises:
        DeviceError: It takes too long or prints too much.
    """
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.1)
        if os.fstat(says.fileno()).st_size > ANSWER_BYTES:
            raise too_much(where, ANSWER_BYTES)
        if time.monotonic() > until:
            raise DeviceError("the device does not answer", where=where, found=f"no login in {seconds:g} s",
                              hint="is it switched on and on the same network?")  # fmt: skip


def too_much(where: str, most: int, unit: str = "bytes") -> DeviceError:
    """Return the error about a device that sends more than a run can produce."""
    return DeviceError("the device sends too much", where=where, expected=f"at most {most:,} {unit}")


def object_of(text: str | bytes) -> dict[str, Any]:
    """Parse JSON; text of another kind, which programs print too, gives an empty object."""
    if text[:1] not in ("{", b"{"):
        return {}
    try:
        tree = strict_json.parse(text)
    except BundleError:
        return {}
    return tree if isinstance(tree, dict) else {}


def journal_line(tree: Any, where: str) -> Line | None:
    """Return the line of a journal that a device sent; None for other objects.

    Raises:
        DeviceError: Its values are not those of a measurement.
    """
    try:
        return line_of(tree)
    except BundleError as error:
        raise DeviceError("the device's answer is not as expected", where=f"{where}, {error.where}",
                          expected=error.expected, found=error.found) from None  # fmt: skip


def equipment_of(tree: Any, where: str) -> Equipment:
    """Return what `doctor` reports about a device.

    Raises:
        DeviceError: A key is missing, or a value is none that it reports.
    """

    def refuse(problem: Problem) -> DeviceError:
        return DeviceError("the device's answer is not as expected", where=f"{where}, doctor, {problem.where}",
                           expected=problem.expected, found=problem.found)  # fmt: skip

    if (fault := first_fault(tree)) is not None:
        raise refuse(fault)
    return typed_json.read(Equipment, tree, refuse)


def free_space(line: str) -> int | None:
    """Return the free bytes in a line of `df -Pk`; None if it is none."""
    fields = line.split()
    if len(fields) < 4 or not fields[3].isdecimal() or len(fields[3]) > MOST_DIGITS:
        return None
    return int(fields[3]) * 1024


class _Clock:
    """A time limit that can be started again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        self._until = time.monotonic() + self._seconds

    @property
    def left_s(self) -> float:
        return self._until - time.monotonic()


@contextlib.contextmanager
def _started(command: Sequence[str], stdin: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; it is killed if the block is left early."""
    with tempfile.TemporaryFile() as given:  # unlike a pipe, it cannot fill up
        given.write(stdin.encode("utf-8", "surrogateescape"))
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _chunks(process: subprocess.Popen[bytes], clock: _Clock) -> Iterator[tuple[int, bytes]]:
    """Yield (stream, bytes) as they arrive, until both streams end.

    Raises:
        TimeoutError: No time is left.
    """
    with selectors.DefaultSelector() as selector:
        for number, stream in ((_OUT, process.stdout), (_ERR, process.stderr)):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, number)
        while selector.get_map():
            if clock.left_s <= 0:
                raise TimeoutError
            for key, _ in selector.select(clock.left_s):
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                yield key.data, chunk
