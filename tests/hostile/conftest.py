"""The sound files that every attack is made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_once import folder_once
from world import World, read_world, write_world


@pytest.fixture(scope="session")
def world_folder() -> Path:
    return folder_once("hostile-world", lambda folder: write_world(folder, every_format=True))


@pytest.fixture(scope="session")
def world(world_folder: Path) -> World:
    return read_world(world_folder)
