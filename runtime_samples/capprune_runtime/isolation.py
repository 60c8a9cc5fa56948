"""Run work in a child process with limits, so that a crash of native code ends only the child.

The verifier refuses everything that is known to crash a runtime. Unknown crashes become errors with an exit code here.
A signal stops the work at once, even while native code runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from capprune_runtime.errors import BundleError, error_from_json
from capprune_runtime.strict_json import parse

BASE_BYTES, BYTES_PER_BYTE = (
    2 << 30,
    8,
)  # base memory, and memory per byte of the bundle; the libraries alone need a large part of it
GRACE_SECONDS = 2.0
ERROR_CODE = 70  # exit code of a child that reports an error as JSON


def limit_this_process(memory_bytes: int) -> None:
    """Limit the memory of this process, where the system can; the child calls it first."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def memory_for(size_bytes: int) -> int:
    """Return the memory limit of a child for a bundle of this size."""
    return BASE_BYTES + BYTES_PER_BYTE * size_bytes


def run_isolated(code: str, arguments: Sequence[str], content: bytes, where: object, seconds: float) -> bytes:
    """Run Python code in a child and return what it writes to stdout.

    Args:
        code: Python source. It reads `content` from stdin, and exits with `ERROR_CODE` after writing an error as JSON.
        arguments: Its `sys.argv[1:]`.
        content: Its stdin.
        where: The file it processes, for messages.
        seconds: Time limit.

    Raises:
        BundleError: The child crashed or took too long.
        CapPruneError: The child reported one.
    """
    with child(code, arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            found, _ = process.communicate(content, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise BundleError(
                "running the models took too long", where=where, expected=f"at most {seconds:.0f} seconds"
            ) from None
    if process.returncode == ERROR_CODE:
        tree = parse(found)
        raise error_from_json(tree if isinstance(tree, dict) else {}, BundleError)
    raise_if_crashed(process.returncode, where)
    return bytes(found)


@contextlib.contextmanager
def child(code: str, arguments: Sequence[str], **streams: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """Start Python code as a child that sees the same packages. The child is killed if the block is left early."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, *arguments]
    process: subprocess.Popen[bytes] = subprocess.Popen(command, env=environment, **streams)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # it may have to clean up
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            process.kill()
        process.wait()
        for stream in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(OSError):
                stream.close()


def raise_if_crashed(returncode: int, where: object) -> None:
    """Raise the error that a child's return code stands for.

    Raises:
        BundleError: A signal ended the child, or it exited without a result.
    """
    if returncode == 0:
        return
    found = f"exit code {returncode}"
    if returncode < 0:
        with contextlib.suppress(ValueError):
            found = signal.Signals(-returncode).name
    raise BundleError("the runtime crashed on the models", where=where, found=found, hint="do not use this bundle")
