"""Open input files without waiting: a named pipe, a socket or a device is refused instead of read."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

# Folders of the process's own descriptors. The user opened them on purpose: /dev/stdin, or bash's <(command).
_OWN_DESCRIPTORS = (Path("/dev/fd"), Path("/proc/self/fd"))
_STDIN = Path("/dev/stdin")
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
# A named pipe that nobody writes to would block `open` for ever.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

_SPECIAL = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_input(path: Path) -> io.FileIO:
    """Open a plain file for reading bytes.

    A pipe is read too if it is one of the process's own descriptors, such as /dev/stdin.

    Raises:
        OSError: The file is missing or unreadable, or is a folder, named pipe, socket or device; `strerror` says which.
    """
    _require_plain(path, os.stat(path).st_mode)  # opening a device can already do something  # noqa: PTH116
    descriptor = os.open(path, _FLAGS | _NO_WAIT)
    try:
        _require_plain(path, os.fstat(descriptor).st_mode)  # it may have been replaced
        if _NO_WAIT:
            os.set_blocking(descriptor, True)
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_plain(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode) or (stat.S_ISFIFO(mode) and (path == _STDIN or path.parent in _OWN_DESCRIPTORS)):
        return
    kind = next((name for test, name in _SPECIAL if test(mode)), "a special file")
    raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, f"{kind}, not a file", str(path))
