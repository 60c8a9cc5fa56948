"""One small walk, made once: drawn scenes, a sparse run of a few steps, its bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from made_once import folder_once

TINY = """
name: tiny
data: {folder: FOLDER, minimum_count: 1, licence: drawn}
encoder: {size: 64}
decoder: {embedding: 32, hidden: 64, attention: 64, context: 64}
training: {epochs: 15, photos_per_batch: 10, learning_rate: 0.005, validation_photos: 20}
pruning: {method: supermask, sparsity: 0.8, kappa: 3000, tolerance: 0.5}
"""


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def capprune(*arguments: object, **environment: str) -> Done:
    """Run the command as a user does, in a process of its own."""
    command = [sys.executable, "-m", "capprune", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Walk:
    """Where the small walk lies."""

    folder: Path

    @property
    def scenes(self) -> Path:
        return self.folder / "scenes"

    @property
    def config(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def photo(self) -> Path:
        return self.scenes / "photos" / "scene-00000.png"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"


def take_walk(folder: Path) -> None:
    """Draw scenes, train on them, export the run."""
    walk = Walk(folder)
    walk.config.write_text(TINY.replace("FOLDER", str(walk.scenes)))
    for arguments in (
        ("data", "scenes", "--out", walk.scenes, "--train", 100, "--val", 20, "--test", 20, "--size", 64),
        ("train", walk.config, "--out", walk.run, "--cache", walk.cache),
        ("export", walk.run, "--weights", "float32", "--out", walk.bundle),
    ):
        done = capprune(*arguments)
        assert done.code == 0, done.err


@pytest.fixture(scope="session")
def walk() -> Walk:
    """The walk, which all processes share: a test may read it, and write beside it only."""
    return Walk(folder_once("walk", take_walk))
