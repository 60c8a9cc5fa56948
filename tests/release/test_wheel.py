"""The wheel: small, complete, and enough for a caption in a clean environment."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import capprune_runtime
from release.conftest import ROOT, install_base, run

pytestmark = pytest.mark.slow

LARGEST = 5_000_000  # bytes
PHOTO = ROOT / "docs" / "gallery" / "chelsea.jpg"


def other_pythons() -> list[str]:
    """Pythons of other versions that capprune supports, where pyenv keeps them."""
    folder = Path.home() / ".pyenv" / "versions"
    return sorted(str(path) for version in ("3.12", "3.13") for path in folder.glob(f"{version}*/bin/python"))


def test_wheel_is_small_and_has_only_the_three_packages(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as members:
        names = members.namelist()
        (metadata,) = (members.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"capprune", "capprune_exporters", "capprune_runtime"}
    for part in ("ready_model/flickr8k-coco.capz", "reporting/page.html.j2", "py.typed"):
        assert f"capprune/{part}" in names
    assert {"capprune_runtime/tflite/operators.json", "capprune_exporters/cost_tables/x86-64.json"} <= set(names)
    assert "License-Expression: Apache-2.0" in metadata and "# capprune" in metadata


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    gradle = (ROOT / "android_demo" / "app" / "build.gradle.kts").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = capprune_runtime.__version__
    assert project["version"] == version
    assert re.findall(r'versionName = "(.*)"', gradle) == [version]
    assert re.findall(r"^## (\d\S*)", changelog, re.MULTILINE)[0] == version


@pytest.mark.parametrize("python", ["this", *(pytest.param(path, marks=pytest.mark.slow) for path in other_pythons())])
def test_wheel_captions_a_photo_in_a_clean_environment(
    wheel: Path, python: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if python == "this":
        programs: Path = request.getfixturevalue("base_programs")
    else:
        programs = install_base(wheel, tmp_path / "venv", python)
    version = run([programs / "capprune", "--version"]).stdout.splitlines()
    assert version == [f"capprune, version {capprune_runtime.__version__}", "extras: none"]
    ours = subprocess.run(
        [sys.executable, "-m", "capprune", "caption", str(PHOTO)], capture_output=True, text=True, check=True
    )
    assert run([programs / "capprune", "caption", PHOTO]).stdout == ours.stdout != ""
    missing = run([programs / "capprune", "train", "x.yaml", "--out", tmp_path / "run"], exits=2)
    assert "pip install 'capprune[train]'" in missing.stderr
