"""Captions of other languages keep their words from the data set to the run: the handed-over case, and others of its kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from capprune.data.scenes import draw_scenes

CONFIG = """
data: {folder: FOLDER, minimum_count: 1}
encoder: {size: 64}
decoder: {embedding: 16, hidden: 16, attention: 16, context: 16}
training: {epochs: 1, photos_per_batch: 10, validation_photos: 8}
"""


def capprune(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "capprune", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def test_captions_that_lost_letters_before_are_refused(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "data", count={"train": 4, "val": 2}, seed=1, size=64)
    (path,) = (tmp_path / "data").glob("dataset_*.json")
    content = json.loads(path.read_text())
    content["images"][1]["sentences"][0]["raw"] = "M\ufffddchen"
    path.write_text(json.dumps(content))
    (tmp_path / "tiny.yaml").write_text(CONFIG.replace("FOLDER", str(tmp_path / "data")))
    code, error = capprune("train", tmp_path / "tiny.yaml", "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    assert code == 4, error
    assert "cannot be read" in error and "1 captions" in error and "M\\ufffddchen" in error
    assert not (tmp_path / "run").exists()
