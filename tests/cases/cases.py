"""The handed-over cases: a folder each with `case.txt` and inputs, named by CAPPRUNE_CASES."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HANDED_OVER = os.environ.get("CAPPRUNE_CASES")


def case_file(case: str, name: str) -> Path:
    """An input of a case; skips the test where the cases are not there."""
    if HANDED_OVER is None:
        pytest.skip("CAPPRUNE_CASES does not name the folder of cases")
    return Path(HANDED_OVER, case, name)


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


def run(
    *arguments: object,
    program: str = "capprune",
    limit_kib: int | None = None,
    stdin: bytes | None = None,
    user: int | None = None,
    **environment: str,
) -> Done:
    """Run a command as a user does; it must never end in a traceback, or call what the user did a defect.

    Args:
        arguments: Of the command.
        program: `capprune` or `capprune_runtime`.
        limit_kib: Address space, as `ulimit -v` takes it.
        stdin: What standard input holds.
        user: The user id to run as.
        environment: Changes of the environment.
    """
    command = [sys.executable, "-m", program, *map(os.fspath, map(_argument, arguments))]
    if limit_kib is not None:
        command = ["bash", "-c", f'ulimit -v {limit_kib}; exec "$@"', "bash", *command]
    done = subprocess.run(
        command, input=stdin or b"", capture_output=True, env={**os.environ, **environment}, user=user, timeout=120,
        check=False,
    )  # fmt: skip
    out, err = (stream.decode("utf-8", "backslashreplace") for stream in (done.stdout, done.stderr))
    assert "Traceback" not in err and "this is a defect" not in out + err, err
    return Done(done.returncode, out, err)


def _argument(value: object) -> str | os.PathLike[str]:
    return value if isinstance(value, str | os.PathLike) else str(value)
