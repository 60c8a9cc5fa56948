"""The handed-over cases, a folder each with `case.txt` and inputs, and commands run as a user runs them.

CAPPRUNE_CASES names the folder of all cases; without it, the small ones of `handed_over` are read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COPIES = Path(__file__).parent / "handed_over"  # of the small ones
GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
HANDED_OVER = Path(os.environ.get("CAPPRUNE_CASES") or COPIES)


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


def unsure_photo() -> Path:
    """Return a photo of the gallery whose caption the packaged model marks as not sure."""
    said = dict(line.split("\t") for line in run("caption", GALLERY).out.splitlines())
    return next(Path(name) for name, caption in said.items() if caption.endswith("(not sure)"))


def _argument(value: object) -> str | os.PathLike[str]:
    return value if isinstance(value, str | os.PathLike) else str(value)
