"""What is written for other readers is what Python was held against."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from all_attacks import ATTACKS
from world import World
from write_attacks import write_attacks

from capprune_runtime import verify_bundle
from capprune_runtime.errors import CapPruneError


def test_every_file_of_the_index_meets_the_error_that_it_names(world: World, tmp_path: Path) -> None:
    write_attacks(world, tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    assert len(index) == len(ATTACKS) + 4
    for entry in index:
        if entry["accept"]:
            verify_bundle(tmp_path / entry["path"])
            continue
        with pytest.raises(CapPruneError) as caught:
            verify_bundle(tmp_path / entry["path"])
        assert (type(caught.value).__name__, caught.value.exit_code) == (entry["error"], entry["exit_code"])
