"""The programs and the notebook of docs/examples run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def run(*arguments: object, cwd: Path) -> str:
    """Run Python with these arguments; returns what it printed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_photos_are_captioned_and_explained(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "caption_photos.py", ROOT / "docs" / "gallery" / "chelsea.jpg", cwd=tmp_path)
    assert "chelsea.jpg: a " in printed
    assert [path.name for path in tmp_path.iterdir()] == ["looked-0.png"]


@pytest.mark.slow
def test_a_sparse_bundle_is_made_and_validated(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "train_and_export.py", tmp_path / "out", cwd=tmp_path)
    assert printed.startswith("80% sparse, CIDEr-D ") and len(printed.splitlines()) == 2


@pytest.mark.slow
def test_methods_are_compared_in_one_table(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "compare_methods.py", tmp_path / "out", cwd=tmp_path)
    assert printed.count("'run':") == 6 and (tmp_path / "out" / "sweep" / "sweep.md").is_file()


@pytest.mark.slow
def test_the_notebook_runs_and_shows_captions_and_tables(tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    run("-c", EXECUTE, EXAMPLES / "walk.ipynb", tmp_path / "run.ipynb", cwd=tmp_path)
    executed = (tmp_path / "run.ipynb").read_text(encoding="utf-8")
    assert executed.count('"text/html"') == 5 and "data:image/jpeg;base64" in executed
    assert "did you mean epochs?" in executed
