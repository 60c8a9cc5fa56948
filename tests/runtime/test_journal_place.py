"""The journal beside a results document takes the place of no other file."""

from __future__ import annotations

from pathlib import Path

import pytest

from capprune_runtime.errors import UsageError
from capprune_runtime.measure.journal import Journal, Line

SESSION = {"bundle": "a", "beam": 1}
MINE = '{"my": "data"}\n{"more": 1}\n'


def test_file_of_the_user_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "data.jsonl"
    place.write_text(MINE)
    with pytest.raises(UsageError, match="another file here already"):
        Journal(place, SESSION)
    assert place.read_text() == MINE


def test_link_is_not_followed(tmp_path: Path) -> None:
    target, place = tmp_path / "mine.txt", tmp_path / "data.jsonl"
    target.write_text('{"session": {}}\n')
    place.symlink_to(target)
    with pytest.raises(UsageError, match="another file here already"):
        Journal(place, SESSION)
    place.unlink()
    place.symlink_to(tmp_path / "not-there")
    with pytest.raises((UsageError, OSError)):
        Journal(place, SESSION)
    assert target.read_text() == '{"session": {}}\n' and not (tmp_path / "not-there").exists()


def test_own_journal_is_gone_on_with_also_when_its_first_line_was_cut(tmp_path: Path) -> None:
    place = tmp_path / "data.jsonl"
    first = Line(SESSION).text()
    for content in ("", first[:9], first[:-3], first):
        place.write_text(content)
        journal = Journal(place, SESSION)
        journal.close()
        assert place.read_text() == (first if content == first else "")
