"""Comparison of captions: the first word that differs from the previous caption."""

from __future__ import annotations

from collections.abc import Sequence

from capprune.reporting.contents import Said, Word
from capprune.validation.parity import first_difference

ENDED = "∎"  # shown if a caption has ended and the previous one has not


def side_by_side(captions: Sequence[tuple[str, str]]) -> tuple[Said, ...]:
    """Mark in each caption the first word that differs from the previous caption.

    Args:
        captions: (model, caption), in the order of the columns.
    """
    said: list[Said] = []
    before: list[str] | None = None
    for model, caption in captions:
        words = caption.split()
        at = None if before is None else first_difference(before, words)
        shown = [*words, ENDED] if at == len(words) else words
        said.append(Said(model, tuple(Word(word, place == at) for place, word in enumerate(shown)), at is not None))
        before = words
    return tuple(said)
