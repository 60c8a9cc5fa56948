"""`python -m capprune_runtime`. This file runs on every Python since 2.7, to name one that is too old."""

import json
import os
import sys

OLDEST_PYTHON = (3, 11)


def process():
    # type: () -> int
    """Run the command if this Python is new enough; otherwise return an exit code."""
    if sys.version_info < OLDEST_PYTHON:
        return _too_old()
    from capprune_runtime.command import process as run

    return run()


def _too_old():
    # type: () -> int
    wanted = "Python {0}.{1} or later".format(*OLDEST_PYTHON)  # noqa: UP030
    found = "Python {0}.{1}.{2} ({3})".format(*(list(sys.version_info[:3]) + [sys.executable]))  # noqa: UP030, RUF005
    newer = _newer_python()
    if newer is None:
        hint = "install Python 3.11; Raspberry Pi OS and Debian have it since Bookworm (12)"
    else:
        hint = newer + " " + " ".join(sys.argv)
    sys.stderr.write(
        "error: this Python is too old\n  expected  {0}\n  found     {1}\n  try       {2}\n".format(wanted, found, hint)  # noqa: UP030, UP032
    )
    if "--json" in sys.argv:
        facts = {"schema_version": 1, "error": "UsageError", "exit_code": 2, "what": "this Python is too old"}
        facts.update({"expected": wanted, "found": found, "try": hint})
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    return 2


def _newer_python():
    # type: () -> str | None
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for minor in range(20, OLDEST_PYTHON[1] - 1, -1):
            path = os.path.join(folder, "python3." + str(minor))  # noqa: PTH118
            if os.access(path, os.X_OK):
                return path
    return None


if __name__ == "__main__":
    sys.exit(process())
