"""Silence, and the way back from it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from capprune_exporters.quiet import quiet


def _open_descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _speak() -> None:
    print("printed")
    print("complained", file=sys.stderr)
    os.write(1, b"from native code\n")
    os.write(2, b"from native code\n")
    subprocess.run([sys.executable, "-c", "print('a child')"], check=True)
    warnings.warn("a warning", stacklevel=1)
    logging.getLogger("converter").warning("a record")


def test_nothing_that_is_said_inside_reaches_the_terminal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with quiet():
        _speak()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_everything_is_as_before_after_a_failure(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    descriptors = _open_descriptors()
    with pytest.raises(KeyboardInterrupt), quiet():
        raise KeyboardInterrupt
    assert _open_descriptors() == descriptors
    with pytest.warns(UserWarning, match="a warning"):
        _speak()
    out, err = capfd.readouterr()
    assert out.split("\n").count("from native code") == 1
    assert {"printed", "a child"} <= set(out.splitlines())
    assert {"complained", "from native code"} <= set(err.splitlines())
    assert [record.message for record in caplog.records] == ["a record"]
