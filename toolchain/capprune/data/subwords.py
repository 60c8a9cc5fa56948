"""Subwords: pieces of words that sentencepiece chooses from the training captions (Kudo and Richardson, 2018).

The pieces are listed in vocabulary.txt, so that captions are decoded without sentencepiece. The sentencepiece model is
kept in the run folder, so that a run that starts from another one splits captions in the same way.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable
from typing import Any, Literal

from capprune.data.words import plain
from capprune_runtime.bundle.tokens import PIECE_SPACE, TokensSection, unspaced
from capprune_runtime.bundle.vocabulary import (
    END,
    PAD,
    SPECIAL_TOKENS,
    START,
    UNKNOWN,
    Vocabulary,
)
from capprune_runtime.errors import BundleError, DataError, MissingExtra


class Subwords:
    """A trained sentencepiece model.

    Args:
        model: Content of its file.

    Raises:
        MissingExtra: sentencepiece is not installed.
        BundleError: The file is invalid, or its special tokens are not those of a vocabulary.txt.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._processor = _sentencepiece().SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise BundleError("this is not a sentencepiece model", found=str(error)[:200]) from None
        pieces = tuple(self._processor.id_to_piece(number) for number in range(self._processor.get_piece_size()))
        self.vocabulary = Vocabulary(pieces, TokensSection("subwords"))

    def encode(self, caption: str) -> tuple[int, ...]:
        """Return the ids of a caption's pieces, without `<start>` and `<end>`."""
        return tuple(self._processor.encode(plain(caption)))


def train_subwords(captions: Iterable[str], *, pieces: int, kind: Literal["bpe", "unigram"]) -> Subwords:
    """Choose pieces from captions; the same captions give the same pieces.

    Args:
        captions: The training captions.
        pieces: Size of the vocabulary; captions with little variety give fewer.
        kind: The algorithm: byte-pair encoding or the unigram language model.

    Raises:
        MissingExtra: sentencepiece is not installed.
        DataError: The captions hold no word, or more different characters than pieces.
    """
    package = _sentencepiece()
    texts = [text for text in map(plain, captions) if text]
    made = io.BytesIO()
    try:
        package.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=made,
            model_type=kind,
            vocab_size=pieces,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",  # `plain` has already normalised the text
            max_sentencepiece_length=16,
            num_threads=1,
            minloglevel=2,
            **dict(zip(("pad_piece", "bos_piece", "eos_piece", "unk_piece"), SPECIAL_TOKENS, strict=True)),
            **dict(zip(("pad_id", "bos_id", "eos_id", "unk_id"), (PAD, START, END, UNKNOWN), strict=True)),
        )
    except RuntimeError as error:
        raise DataError(
            "sentencepiece cannot choose pieces from these captions",
            expected="at least as many pieces as there are different characters in the captions",
            found=str(error)[-200:],
            hint="raise data.subword_pieces",
        ) from None
    return Subwords(made.getvalue())


def whole_words(ids: tuple[int, ...], vocabulary: Vocabulary, longest: int) -> tuple[int, ...]:
    """Return the first `longest` ids of pieces or characters, without a last word that would be cut.

    If the first word alone is longer, it is cut.
    """
    if len(ids) <= longest:
        return ids
    starts = [place for place in range(1, longest + 1) if _starts_a_word(vocabulary.tokens[ids[place]])]
    return ids[: starts[-1]] if starts else ids[:longest]


def _starts_a_word(piece: str) -> bool:
    first = piece[0]
    return first == PIECE_SPACE or (unspaced(first) and unicodedata.category(first)[0] != "M")


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtra("subword tokens need sentencepiece", hint="pip install 'capprune[subwords]'") from error
    return sentencepiece
