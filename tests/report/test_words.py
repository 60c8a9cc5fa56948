"""The first word that differs, whatever the lengths."""

from __future__ import annotations

import pytest

from capprune.report.words import ENDED, first_difference, side_by_side


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("a red disk", "a red disk", None),
        ("a red disk", "a blue disk", 1),
        ("a red disk", "the red disk", 0),
        ("a red disk", "a red disk on sand", 3),
        ("a red disk on sand", "a red disk", 3),
        ("", "", None),
        ("", "a", 0),
    ],
)
def test_first_difference(before: str, after: str, place: int | None) -> None:
    assert first_difference(before.split(), after.split()) == place


def test_each_caption_is_marked_against_the_one_before_it() -> None:
    dense, pruned, exported = side_by_side(
        [("dense", "a red disk"), ("pruned", "a big disk"), ("exported", "a big disk")]
    )
    assert not dense.differs and not any(word.marked for word in dense.words)
    assert pruned.differs and [word.text for word in pruned.words if word.marked] == ["big"]
    assert not exported.differs and not any(word.marked for word in exported.words)


def test_a_caption_that_ends_early_is_marked_at_its_end() -> None:
    _, shorter = side_by_side([("dense", "a red disk on sand"), ("pruned", "a red disk")])
    assert [(word.text, word.marked) for word in shorter.words][-1] == (ENDED, True)
