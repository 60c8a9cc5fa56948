"""Captions side by side, with the first word that differs marked."""

from __future__ import annotations

from capprune.reporting.words import ENDED, side_by_side


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
