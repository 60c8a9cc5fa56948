"""The reward of a caption: CIDEr-D and BLEU-4 against its photo's captions, as ids, with `<end>` as a word.

Thousands of captions are rewarded per minute. So n-grams are kept as ids, and the n-grams of every photo's references
are counted once. A test compares CIDEr-D with pycocoevalcap's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from capprune.data.words import words as split_words
from capprune_runtime.bundle.vocabulary import END, SPECIAL_TOKENS, UNKNOWN, Vocabulary

N = 4  # the longest n-gram, for both
SIGMA = 6.0  # of CIDEr-D's length penalty
CIDER_SCALE = 10.0
_NO_WORD, _FIRST_WORD = -1, 4  # besides `END`
TINY, SMALL = 1e-15, 1e-9  # keep BLEU of a caption without a 4-gram small, but defined

Ngrams = Counter[tuple[int, ...]]
Caption = tuple[tuple[int, ...], bool]  # ids, and whether `<end>` follows


class WordIds:
    """Maps captions to numbers of their words for any kind of tokens, so that n-grams of words are rewarded.

    Args:
        vocabulary: Vocabulary of the captions. If its tokens are words, the ids are the numbers.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._numbers: dict[str, int] = {}

    def reference(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Return the word numbers of a human caption."""
        if self._vocabulary.coding.kind == "words":
            return ids
        texts = self._texts(ids)
        return tuple(self._numbers.setdefault(text, _FIRST_WORD + len(self._numbers)) for text in texts)

    def sample(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Return the word numbers of a sampled caption. Words of no human caption and invalid digits match nothing."""
        if self._vocabulary.coding.kind == "words":
            return ids
        return tuple(
            _NO_WORD if text == SPECIAL_TOKENS[UNKNOWN] else self._numbers.get(text, _NO_WORD)
            for text in self._texts(ids)
        )

    def _texts(self, ids: tuple[int, ...]) -> tuple[str, ...]:
        if self._vocabulary.coding.kind == "radix":
            return tuple(self._vocabulary.tokens[line] for line in self._vocabulary.lines(ids))
        return split_words(self._vocabulary.caption(ids))


class CaptionReward:
    """Computes rewards of captions from the references of their photos.

    Args:
        references: For every photo its captions as ids, without `<end>`.
        cider: Weight of CIDEr-D.
        bleu4: Weight of BLEU-4 of single captions.
        repetition: Weight of the share of repeated pairs of words, which is subtracted.
        words: Maps token ids to words; None if tokens are words.
    """

    def __init__(
        self,
        references: Sequence[Sequence[tuple[int, ...]]],
        *,
        cider: float,
        bleu4: float,
        repetition: float = 0.0,
        words: WordIds | None = None,
    ) -> None:
        self._cider, self._bleu4, self._repetition, self._words = cider, bleu4, repetition, words
        if words is not None:
            references = [[words.reference(ids) for ids in own] for own in references]
        counted = [[ngrams((*ids, END)) for ids in own] for own in references]
        frequency = Counter(ngram for own in counted for ngram in {ngram for one in own for ngram in one})
        self._log_photos = math.log(len(references))
        self._idf = {ngram: self._log_photos - math.log(count) for ngram, count in frequency.items()}
        self._counted = counted
        self._vectors = [[self._vector(one) for one in own] for own in counted]
        self._most = [_at_most(own) for own in counted]
        self._lengths = [[len(ids) + 1 for ids in own] for own in references]

    def __call__(self, photos: npt.NDArray[np.int64], captions: Sequence[Caption]) -> npt.NDArray[np.float64]:
        """Return the rewards `(B,)` of captions of the photos `(B,)`."""
        found = [self._reward(int(photo), caption) for photo, caption in zip(photos, captions, strict=True)]
        return np.array(found, dtype=np.float64)

    def _reward(self, photo: int, caption: Caption) -> float:
        ids, ended = caption
        if self._words is not None:
            ids = self._words.sample(ids)
        words = (*ids, END) if ended else ids
        counts = ngrams(words)
        reward = 0.0
        if self._cider:
            reward += self._cider * self.cider_d(photo, counts, len(words))
        if self._bleu4:
            reward += self._bleu4 * self.bleu(photo, counts, len(words))
        if self._repetition:
            reward -= self._repetition * repeated_pairs(counts)
        return reward

    def cider_d(self, photo: int, counts: Ngrams, length: int) -> float:
        """Return CIDEr-D (0 to 10) of one caption's n-grams."""
        vector, norms = self._vector(counts)
        total = 0.0
        for (reference, reference_norms), words in zip(self._vectors[photo], self._lengths[photo], strict=True):
            products = [0.0] * N
            for ngram, weight in vector.items():
                other = reference.get(ngram)
                if other is not None:
                    products[len(ngram) - 1] += min(weight, other) * other
            alike = sum(
                product / (own * theirs)
                for product, own, theirs in zip(products, norms, reference_norms, strict=True)
                if own and theirs
            )
            total += alike * math.exp(-((length - words) ** 2) / (2 * SIGMA**2))
        return CIDER_SCALE / N * total / len(self._vectors[photo])

    def bleu(self, photo: int, counts: Ngrams, length: int) -> float:
        """Return BLEU-4 (0 to 1) of one caption's n-grams, against the reference of the closest length."""
        most, matched, guessed = self._most[photo], [0] * N, [max(0, length - n) for n in range(N)]
        for ngram, count in counts.items():
            matched[len(ngram) - 1] += min(count, most.get(ngram, 0))
        product = math.prod((hit + TINY) / (tried + SMALL) for hit, tried in zip(matched, guessed, strict=True))
        closest = min((abs(words - length), words) for words in self._lengths[photo])[1]
        ratio = (length + TINY) / (closest + SMALL)
        return product ** (1 / N) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)

    def _vector(self, counts: Ngrams) -> tuple[dict[tuple[int, ...], float], list[float]]:
        """Return the weights of n-grams by frequency and rarity, and their norms for each n."""
        idf, unseen = self._idf, self._log_photos
        vector = {ngram: count * idf.get(ngram, unseen) for ngram, count in counts.items()}
        squares = [0.0] * N
        for ngram, weight in vector.items():
            squares[len(ngram) - 1] += weight * weight
        return vector, [math.sqrt(square) for square in squares]


def ngrams(words: Sequence[int]) -> Ngrams:
    """Count every n-gram of 1 to 4 ids in a caption."""
    ids = tuple(words)
    return Counter(ids[i : i + n] for n in range(1, N + 1) for i in range(len(ids) - n + 1))


def repeated_pairs(counts: Ngrams) -> float:
    """Return the share (0 to 1) of a caption's pairs of adjacent words that stand earlier in it too."""
    pairs = [count for ngram, count in counts.items() if len(ngram) == 2]
    return (sum(pairs) - len(pairs)) / sum(pairs) if pairs else 0.0


def _at_most(references: Sequence[Ngrams]) -> Ngrams:
    """Return the largest count of every n-gram in any one reference."""
    most: Ngrams = Counter()
    for counts in references:
        most |= counts
    return most
