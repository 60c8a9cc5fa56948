"""Every attack is refused by its own rule, and every row of the table has its attacks."""

from __future__ import annotations

import collections
import re
import time
from pathlib import Path

import pytest
from all_attacks import ATTACKS
from attacks import PACKED, PACKED_NAME, ROWS, Attack, write_files
from world import World

from capprune_runtime import verify_bundle


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_attack_is_refused_by_its_rule(attack: Attack, world: World, tmp_path: Path) -> None:
    write_files(attack.make(world), tmp_path / "hostile")
    start = time.process_time()
    with pytest.raises(attack.error, match=attack.says) as caught:
        verify_bundle(tmp_path / "hostile" / PACKED_NAME if attack.kind == PACKED else tmp_path / "hostile")
    assert type(caught.value) is attack.error
    assert caught.value.exit_code in (4, 5)
    assert "hostile" in str(caught.value.where)
    assert time.process_time() - start < BASE_SECONDS
    assert len(str(caught.value)) < MOST_CHARACTERS


BASE_SECONDS = 5.0  # of a file of any size
MOST_CHARACTERS = 2_500  # of a message, its place included


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_bundles_that_attacks_are_made_from_are_sound(cell: str, world: World, tmp_path: Path) -> None:
    write_files(world.bundles[cell], tmp_path / "sound")
    verify_bundle(tmp_path / "sound")


@pytest.mark.parametrize("row", ROWS)
def test_row_has_at_least_three_attacks(row: int) -> None:
    assert len([attack for attack in ATTACKS if attack.row == row]) >= 3


def test_attacks_have_names_of_their_own() -> None:
    counts = collections.Counter(attack.id for attack in ATTACKS)
    assert max(counts.values()) == 1, counts.most_common(3)


def test_readme_names_every_row() -> None:
    text = Path(__file__).with_name("README.md").read_text()
    numbers = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert numbers >= ROWS.keys()
