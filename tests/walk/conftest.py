"""What the slow tests of trained families share."""

from __future__ import annotations

from pathlib import Path

import pytest
from family_training import SCENES, DesktopJvm, capprune


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    sizes = [part for name, count in SCENES.items() for part in (f"--{name}", count)]
    capprune("data", "scenes", "--size", 128, *sizes, "--out", folder)
    return folder


@pytest.fixture(scope="module")
def jvm(jdk: None, android_parts: Path, tmp_path_factory: pytest.TempPathFactory) -> DesktopJvm:
    """The app's core on a desktop JVM."""
    return DesktopJvm.build(android_parts, tmp_path_factory.mktemp("jvm"))
