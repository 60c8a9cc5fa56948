"""The words that a model can say, chosen from captions, and captions as their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from capprune.data.captions import words
from capprune_runtime.bundle.vocabulary import MAX_TOKEN_CHARACTERS, SPECIAL_TOKENS, Vocabulary
from capprune_runtime.errors import DataError, UsageError


def build_vocabulary(captions: Iterable[str], *, minimum_count: int) -> Vocabulary:
    """Collect the words of captions.

    Args:
        captions: Those of the train split.
        minimum_count: Rarer words become `<unk>`.

    Returns:
        The special tokens, then the words, the most frequent first, equally frequent ones by the alphabet.

    Raises:
        UsageError: `minimum_count` is less than 1.
        DataError: No word is frequent enough.
    """
    if minimum_count < 1:
        raise UsageError("the least count of a word is too small", expected="at least 1", found=minimum_count)
    counts = Counter(word for caption in captions for word in words(caption) if len(word) <= MAX_TOKEN_CHARACTERS)
    frequent = [word for word, count in counts.items() if count >= minimum_count]
    if not frequent:
        raise DataError(
            "no word is frequent enough for the vocabulary",
            expected=f"words that stand {minimum_count} times or more",
            found=f"{len(counts):,} words, the most frequent {max(counts.values(), default=0)} times",
            hint="data.minimum_count=1",
        )
    frequent.sort(key=lambda word: (-counts[word], word))
    return Vocabulary((*SPECIAL_TOKENS, *frequent))


def encode(caption: str, vocabulary: Vocabulary, maximum_tokens: int) -> tuple[int, ...]:
    """The ids of a caption's first `maximum_tokens` words, without `<start>` and `<end>`."""
    return tuple(vocabulary.id(word) for word in words(caption)[:maximum_tokens])
