"""Signs of degenerate captions that a metric may miss, and the constant caption that a model must beat.

A pruned model tends to fail in a few ways: it uses only a few words, generates `<unk>`, or stops in the middle of a
phrase. CIDEr-D hardly changes with the last of these.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from capprune.data.words import words
from capprune.metrics.scores import Scores, chosen_tokenizer, score_tokenised, tokenize
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS, UNKNOWN
from capprune_runtime.errors import DataError

UNKNOWN_TOKEN = SPECIAL_TOKENS[UNKNOWN]

# Words that an English caption does not end in.
BAD_ENDINGS = frozenset(
    (
        *("a", "an", "the", "its", "his", "her", "their"),
        *("of", "with", "in", "on", "to", "at", "by", "for", "from", "into", "near", "as"),
        *("and", "or", "that", "while", "is", "are"),
    )
)

CONSTANT_CAPTION_POOL = 20_000  # distinct training captions to rank, the most frequent first
CONSTANT_CAPTION_SAMPLE = 200  # photos whose references rank the pool
CONSTANT_CAPTION_FINALISTS = 200  # captions scored on all references

COLUMNS = ("distinct words", "mean words", "with <unk>", "bad endings")  # of `Health.cells`

NGRAM = 4  # as in CIDEr-D
SIGMA = 6.0
SCALE = 10.0

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class Health:
    """Facts about a set of captions that need no reference.

    Attributes:
        captions: Number of captions.
        distinct_captions: Number of distinct captions.
        distinct_words: Number of distinct words.
        mean_words: Mean length in words.
        empty_share: Share of captions without a word (0 to 1).
        unknown_share: Share of captions that hold `<unk>` (0 to 1).
        bad_ending_share: Share of captions that end in a word of `BAD_ENDINGS` (0 to 1).
    """

    captions: int
    distinct_captions: int
    distinct_words: int
    mean_words: float
    empty_share: float
    unknown_share: float
    bad_ending_share: float

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """Return the table cells of `COLUMNS`."""
        return (
            f"{self.distinct_words:,}",
            f"{self.mean_words:.1f}",
            f"{self.unknown_share:.1%}",
            f"{self.bad_ending_share:.1%}",
        )


def caption_health(captions: Iterable[str]) -> Health:
    """Return the facts about a model's captions; words are separated by spaces.

    Raises:
        DataError: There are no captions.
    """
    said = [_spoken(caption.lower()) for caption in captions]
    if not said:
        raise DataError("there are no captions to examine")
    count = len(said)
    return Health(
        captions=count,
        distinct_captions=len({tuple(caption) for caption in said}),
        distinct_words=len({word for caption in said for word in caption}),
        mean_words=sum(map(len, said)) / count,
        empty_share=sum(not caption for caption in said) / count,
        unknown_share=sum(UNKNOWN_TOKEN in caption for caption in said) / count,
        bad_ending_share=sum(bool(caption) and caption[-1] in BAD_ENDINGS for caption in said) / count,
    )


def best_constant_caption(
    training: Iterable[str], references: Mapping[str, Sequence[str]], *, tokenizer: str = "auto"
) -> tuple[str, Scores]:
    """Return the training caption with the highest CIDEr-D if it is used for every photo.

    A model with a lower score has learned nothing from the photos. The pool (the most frequent distinct captions) is
    ranked on a sample of the photos, the finalists on all of them.

    Args:
        training: Raw captions to choose from.
        references: For each photo its raw human captions.
        tokenizer: "ptb", "plain" or "auto".

    Returns:
        The caption, tokenised, and its scores on `references` (without METEOR).

    Raises:
        DataError: There are no captions, or no references.
    """
    chosen = chosen_tokenizer(tokenizer, [caption for own in references.values() for caption in own])
    names = sorted(references)
    tokens = iter(tokenize([caption for name in names for caption in references[name]], chosen))
    tokenised = {name: [next(tokens) for _ in references[name]] for name in names}
    frequent = [caption for caption, _ in Counter(training).most_common(CONSTANT_CAPTION_POOL)]
    pool = list(dict.fromkeys(filter(None, tokenize(frequent, chosen))))
    if not pool or not names:
        raise DataError("a constant caption needs training captions and photos with references")
    everything = list(tokenised.values())
    stride = -(-len(everything) // CONSTANT_CAPTION_SAMPLE)
    finalists = _best(pool, everything[::stride])[:CONSTANT_CAPTION_FINALISTS]
    caption = _best(finalists, everything)[0]
    return caption, score_tokenised(tokenised, dict.fromkeys(names, caption), tokenizer=chosen, meteor=False)


def _spoken(caption: str) -> list[str]:
    """Return the words between spaces; for scripts without spaces, the words that `words` finds."""
    return [word for part in caption.split() for word in ((part,) if part.isascii() else words(part))]


def _best(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[str]:
    """Sort the captions by decreasing mean CIDEr-D, ties in their original order."""
    consensus = Consensus(references)
    return sorted(captions, key=consensus.mean_cider, reverse=True)


class Consensus:
    """CIDEr-D of one caption against all references together.

    pycocoevalcap iterates over every reference for every caption. Here each n-gram has a list of the references that
    contain it, so that a caption takes about forty array operations. A test compares the two.

    Args:
        references: For each photo its tokenised references.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self._log_photos = float(np.log(len(references)))
        frequency = Counter(
            ngram for photo in references for ngram in {ngram for caption in photo for ngram in _ngrams(caption)}
        )
        self._idf = {ngram: self._log_photos - float(np.log(count)) for ngram, count in frequency.items()}
        captions = [_ngrams(caption) for photo in references for caption in photo]
        holders: dict[Ngram, list[tuple[int, float]]] = defaultdict(list)
        norms = np.zeros((NGRAM, len(captions)))
        for position, counts in enumerate(captions):
            for ngram, count in counts.items():
                weight = count * self._idf[ngram]
                holders[ngram].append((position, weight))
                norms[len(ngram) - 1, position] += weight**2
        self._norms = np.sqrt(norms)  # (n, captions)
        self._lengths = np.array([_length(counts) for counts in captions], dtype=np.float64)
        # Every photo has the same weight, whatever its number of references.
        self._shares = np.concatenate([np.full(len(photo), 1 / len(photo)) for photo in references])
        self._shares /= len(references)
        self._holders: dict[Ngram, tuple[NDArray[np.int64], NDArray[np.float64]]] = {
            ngram: (np.array([p for p, _ in found], np.int64), np.array([w for _, w in found]))
            for ngram, found in holders.items()
        }

    def mean_cider(self, caption: str) -> float:
        """Return the mean CIDEr-D of using this tokenised caption for every photo."""
        counts = _ngrams(caption)
        similarity = np.zeros_like(self._norms)  # (n, captions)
        squares = np.zeros(NGRAM)
        for ngram, count in counts.items():
            weight = count * self._idf.get(ngram, self._log_photos)
            squares[len(ngram) - 1] += weight**2
            if ngram in self._holders:
                positions, weights = self._holders[ngram]
                similarity[len(ngram) - 1, positions] += np.minimum(weight, weights) * weights
        norms = np.sqrt(squares)[:, None] * self._norms
        similarity = np.divide(similarity, norms, out=np.zeros_like(norms), where=norms > 0)
        penalty = np.exp(-((_length(counts) - self._lengths) ** 2) / (2 * SIGMA**2))
        return float(SCALE / NGRAM * (similarity.sum(axis=0) * penalty) @ self._shares)


def _ngrams(caption: str) -> Counter[Ngram]:
    tokens = caption.split()
    return Counter(
        gram for n in range(1, NGRAM + 1) for gram in zip(*(islice(tokens, i, None) for i in range(n)), strict=False)
    )


def _length(ngrams: Counter[Ngram]) -> int:
    """Return CIDEr-D's length of a caption: its number of bigrams, one less than its words."""
    return sum(count for ngram, count in ngrams.items() if len(ngram) == 2)
