"""The words or characters that a model can generate, chosen from captions, and captions as token ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from capprune.data.subwords import Subwords, whole_words
from capprune.data.words import plain, words
from capprune_runtime.bundle.tokens import PIECE_SPACE, WORDS, TokensSection
from capprune_runtime.bundle.vocabulary import MAX_TOKEN_CHARACTERS, SPECIAL_TOKENS, Vocabulary
from capprune_runtime.errors import ConfigError, DataError, UsageError


def build_vocabulary(captions: Iterable[str], *, minimum_count: int, coding: TokensSection = WORDS) -> Vocabulary:
    """Collect the words of captions, or their characters.

    Args:
        captions: Captions of the train split.
        minimum_count: Rarer words or characters become `<unk>`.
        coding: The kind of tokens; pieces of words are made by `capprune.data.subwords`.

    Returns:
        The special tokens, then the words by decreasing frequency; equally frequent words are in alphabetical order.

    Raises:
        UsageError: `minimum_count` is less than 1.
        ConfigError: There are more words than radix tokens can number.
        DataError: No word is frequent enough.
    """
    if minimum_count < 1:
        raise UsageError("data.minimum_count is too small", expected="at least 1", found=minimum_count)
    split = characters if coding.kind == "characters" else words
    counts = Counter(word for caption in captions for word in split(caption) if len(word) <= MAX_TOKEN_CHARACTERS)
    frequent = [word for word, count in counts.items() if count >= minimum_count]
    if not frequent:
        raise DataError(
            "no word is frequent enough for the vocabulary",
            expected=f"words that occur {minimum_count} times or more",
            found=f"{len(counts):,} words, the most frequent {max(counts.values(), default=0)} times",
            hint="data.minimum_count=1",
        )
    if coding.kind == "radix" and len(frequent) > coding.base**coding.per_word:
        raise ConfigError(
            "there are more words than radix tokens can number",
            where="data.radix_base",
            expected=f"at most {coding.base**coding.per_word:,} words in base {coding.base}",
            found=f"{len(frequent):,} words",
            hint="raise data.radix_base or data.minimum_count",
        )
    frequent.sort(key=lambda word: (-counts[word], word))
    return Vocabulary((*SPECIAL_TOKENS, *frequent), coding)


def characters(caption: str) -> tuple[str, ...]:
    """Return the code points of a caption's plain text, with a visible marker for every space."""
    return tuple(plain(caption).replace(" ", PIECE_SPACE))


def encode(caption: str, vocabulary: Vocabulary, maximum_tokens: int) -> tuple[int, ...]:
    """Return the ids of a caption's first `maximum_tokens` words, or characters, without `<start>` and `<end>`.

    Characters are cut after the last whole word. Pieces of words are encoded by `CaptionTokens`.
    """
    if vocabulary.coding.kind == "characters":
        ids = tuple(vocabulary.id(character) for character in characters(caption))
        return whole_words(ids, vocabulary, maximum_tokens)
    lines = (vocabulary.id(word) for word in words(caption)[:maximum_tokens])
    return tuple(token for line in lines for token in vocabulary.token_ids(line))


@dataclass(frozen=True)
class CaptionTokens:
    """Encoder of captions as token ids of any kind.

    Attributes:
        vocabulary: Vocabulary of the training captions.
        subwords: The sentencepiece model of kind `subwords`; None for the other kinds.
    """

    vocabulary: Vocabulary
    subwords: Subwords | None = None

    def encode(self, caption: str, maximum_tokens: int) -> tuple[int, ...]:
        """Return the ids of a caption, without `<start>` and `<end>`; see `encode`."""
        if self.subwords is None:
            return encode(caption, self.vocabulary, maximum_tokens)
        return whole_words(self.subwords.encode(caption), self.vocabulary, maximum_tokens)
