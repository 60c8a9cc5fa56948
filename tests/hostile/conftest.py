"""The sound files that every attack is made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import World, read_world, write_world


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, every_format=True)
    return folder


@pytest.fixture(scope="session")
def world(world_folder: Path) -> World:
    return read_world(world_folder)
