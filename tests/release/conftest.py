"""The wheel of this checkout, and an environment with nothing else: built once for all tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("toolchain", "exporters", "runtime_samples", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def online(when_absent: Callable[[str, str], None], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where pip reaches no package index: a build needs setuptools, an install the dependencies."""
    folder = tmp_path_factory.mktemp("probe")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "-d", str(folder), "wheel"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        when_absent("packages", "pip reaches no package index")


@pytest.fixture(scope="session")
def wheel(online: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build", reason="pip install build")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:  # a copy, so that nothing of an earlier build gets in
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(place, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(place, source)
    run([sys.executable, "-m", "build", "--wheel", "--outdir", out, source])
    (built,) = out.glob("*.whl")
    return built


def run(command: list[object], *, exits: int = 0, cwd: Path | str = "/") -> subprocess.CompletedProcess[str]:
    """Run a command in an environment that does not know this checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=clean, cwd=cwd, check=False)
    assert done.returncode == exits, done.stdout + done.stderr
    return done


def install_base(wheel: Path, folder: Path, python: str) -> Path:
    """Install the wheel without extras into a new environment; returns the folder of its programs."""
    run([python, "-m", "venv", folder])
    run([folder / "bin" / "python", "-m", "pip", "install", "-q", wheel])
    return folder / "bin"


@pytest.fixture(scope="session")
def base_programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the base install of this checkout."""
    return install_base(wheel, tmp_path_factory.mktemp("base") / "venv", sys.executable)
