"""Filters for generated captions: by length, repetition, language and confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Final

from capprune.data.words import words
from capprune.labelling.teacher import Label

# Logarithm of the ratio by which another language must be more probable than the wanted one. Language models are
# uncertain about short captions: on "two cats" every language of Europe is within a factor of 3, on "ein Hund im Gras"
# German is 20,000 times as probable as English.
LANGUAGE_NATS: Final = 5.0


@dataclass(frozen=True)
class Filters:
    """Conditions on a caption.

    Attributes:
        least_words, most_words: Limits of its length.
        least_confidence: Minimum geometric mean of its tokens' probabilities, 0 to 1.
        language: ISO 639-1 code, such as `en`; None for any.
    """

    least_words: int = 3
    most_words: int = 25
    least_confidence: float = 0.0
    language: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name."""
        return asdict(self)

    def refusal(self, label: Label) -> str | None:
        """Return why a caption is left out; None if it is kept."""
        found = words(label.text)
        if len(found) < self.least_words:
            return f"captions of fewer than {self.least_words} words"
        if len(found) > self.most_words:
            return f"captions of more than {self.most_words} words"
        if repeats(found):
            return "captions that repeat two words in a row"
        if self.language is not None and (other := other_language(label.text, self.language)) is not None:
            return f"captions in another language ({other})"
        if label.confidence < self.least_confidence:
            return f"captions of a confidence below {self.least_confidence:g}"
        return None


def repeats(found: Sequence[str]) -> bool:
    """Return whether a word is followed by itself, or a pair of words occurs twice."""
    pairs = list(pairwise(found))
    return any(first == second for first, second in pairs) or len(set(pairs)) < len(pairs)


def other_language(text: str, wanted: str) -> str | None:
    """Return the language of a text if it is clearly not the wanted one."""
    import py3langid  # type: ignore[import-untyped]  # four seconds to import

    ranks = py3langid.rank(text)
    best, score = ranks[0]
    return None if best == wanted or score - dict(ranks)[wanted] <= LANGUAGE_NATS else str(best)


def languages() -> tuple[str, ...]:
    """Return the codes of the supported languages."""
    import py3langid

    return tuple(sorted(code for code, _ in py3langid.rank("a")))
