"""What the slow tests of trained families share."""

from __future__ import annotations

from pathlib import Path

import pytest
from family_training import SCENES, DesktopJvm, capprune
from made_once import folder_once


@pytest.fixture(scope="session")
def scenes() -> Path:
    """Drawn scenes; the cache of their features is beside them."""
    return folder_once("family-scenes", draw) / "scenes"


def draw(folder: Path) -> None:
    sizes = [part for name, count in SCENES.items() for part in (f"--{name}", count)]
    capprune("data", "scenes", "--size", 128, *sizes, "--out", folder / "scenes")


@pytest.fixture(scope="session")
def jvm(jdk: None, android_parts: Path) -> DesktopJvm:
    """The app's core on a desktop JVM."""
    return DesktopJvm.build(android_parts)
