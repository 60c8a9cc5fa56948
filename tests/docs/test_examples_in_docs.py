"""Blocks under `<!-- run -->` print what their page shows. A line of `…` stands for any lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from doc_pages import ROOT, Block, blocks

RUN = [block for block in blocks() if block.runs]
ANY = "…"


def sessions(text: str) -> list[tuple[str, list[str]]]:
    """Split a block into commands and the lines that they print."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line.rstrip())
    return found


def as_pattern(lines: list[str]) -> str:
    """Return the pattern that the printed text must match."""
    return "".join(r"(?:.*\n)*?" if line == ANY else f"{re.escape(line)} *\n" for line in lines)


@pytest.mark.parametrize("block", RUN, ids=str)
def test_example_prints_what_the_page_shows(block: Block, tmp_path: Path) -> None:
    for folder in ("docs", "ready_model"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    environment = {**os.environ, "COLUMNS": "160"}
    for command, lines in sessions(block.text):
        assert command.startswith("capprune ")
        done = subprocess.run(
            [sys.executable, "-m", "capprune", *command.split()[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(as_pattern(lines), done.stdout), f"{block.page}: {command} printed\n{done.stdout}"


def test_other_output_does_not_match() -> None:
    assert re.fullmatch(as_pattern(["a", ANY, "d"]), "a \nb\nc\nd\n")
    assert not re.fullmatch(as_pattern(["a", "b"]), "a\nc\n")
