"""The vocabulary of a sentencepiece WORD model: `word.model` of the reference code's tokenizer.

A model is a protobuf message of pieces, each with a text, a score and a kind, and of its training settings. The number
of a piece is its id. In a word model a piece is `▁` and a word; the four special pieces come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from capprune_runtime.errors import BadModelFile, BadVocabulary
from capprune_runtime.onnx.protobuf import BYTES, FIXED32, VARINT, Field, Message, read_message

MAX_MODEL_BYTES: Final = 16 << 20
MAX_PIECES: Final = 1 << 18
WORD_START: Final = "▁"
NORMAL, UNKNOWN, CONTROL = 1, 2, 3

_KINDS: Final = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
_WORD: Final = 3
_PIECE: Final = {1: Field("piece", BYTES), 2: Field("score", FIXED32), 3: Field("type", VARINT)}
_SETTINGS: Final = {  # all fields of sentencepiece 0.2, so that a field of another format is noticed
    **{n: Field(f"field_{n}", BYTES) for n in (2, 7, 36, 53, 54)},
    **{n: Field(f"field_{n}", BYTES, repeated=True) for n in (1, 5, 30, 31)},
    **{n: Field(f"field_{n}", FIXED32) for n in (10, 15, 51)},
    **{n: Field(f"field_{n}", VARINT) for n in (6, 11, 12, 13, 14, *range(16, 27), 32, 33, 34, 35, 49, 50, 52)},
    3: Field("model_type", VARINT),
    4: Field("vocab_size", VARINT),
    40: Field("unk_id", VARINT),
    41: Field("bos_id", VARINT),
    42: Field("eos_id", VARINT),
    43: Field("pad_id", VARINT),
    44: Field("unk_surface", BYTES),
    45: Field("unk_piece", BYTES),
    46: Field("bos_piece", BYTES),
    47: Field("eos_piece", BYTES),
    48: Field("pad_piece", BYTES),
}
_MODEL: Final = {
    1: Field("pieces", BYTES, repeated=True),
    2: Field("trainer_spec", BYTES),
    3: Field("normalizer_spec", BYTES),
    4: Field("self_test_data", BYTES),
    5: Field("denormalizer_spec", BYTES),
}
_DEFAULT_IDS: Final = {"unk": 0, "bos": 1, "eos": 2, "pad": -1}


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the tokens that are not words."""

    pad: int
    unk: int
    bos: int
    eos: int


@dataclass(frozen=True)
class WordModel:
    """The tokens of a word model.

    Attributes:
        tokens: In the order of their ids; words without the leading `▁`, special tokens as written.
        special: The tokens that are not words.
    """

    tokens: tuple[str, ...]
    special: SpecialIds


def read_word_model(data: bytes, where: str) -> WordModel:
    """Read the tokens of a word model.

    Args:
        data: The file `word.model`.
        where: Its name, for messages.

    Raises:
        BadModelFile: It is not a sentencepiece model, or truncated.
        BadVocabulary: It splits words into pieces, lacks a special token, or holds a piece that is not a word.
    """
    if len(data) > MAX_MODEL_BYTES:
        raise BadModelFile("a sentencepiece model is too large", where=where, expected=f"{MAX_MODEL_BYTES:,} bytes")
    if not data:
        raise BadModelFile("a sentencepiece model is empty", where=where)
    model = read_message(data, where, "sentencepiece model", _MODEL)
    settings = model.message("trainer_spec", _SETTINGS)
    kind = settings.integer("model_type") if settings.has("model_type") else 1
    if kind != _WORD:
        raise BadVocabulary(
            "this tokenizer does not keep words whole",
            where=where,
            expected="a word model",
            found=f"a {_KINDS.get(kind, f'kind {kind}')} model",
            hint="only checkpoints with tokenizer: word can be imported",
        )
    pieces = model.messages("pieces", _PIECE, MAX_PIECES)
    special = _special(settings, len(pieces), where)
    return WordModel(tuple(_token(piece, number, special, where) for number, piece in enumerate(pieces)), special)


def _special(settings: Message, pieces: int, where: str) -> SpecialIds:
    ids = {
        name: settings.integer(f"{name}_id") if settings.has(f"{name}_id") else default
        for name, default in _DEFAULT_IDS.items()
    }
    for name, number in ids.items():
        if not 0 <= number < pieces:
            raise BadVocabulary(
                f"the tokenizer has no <{name}> token", where=where, expected=f"an id under {pieces:,}", found=number
            )
    if len(set(ids.values())) != len(ids):
        raise BadVocabulary("two special tokens have one id", where=where, found=ids)
    return SpecialIds(**ids)


def _token(piece: Message, number: int, special: SpecialIds, where: str) -> str:
    text, place = piece.text("piece"), f"{where}, piece {number}"
    kind = piece.integer("type") if piece.has("type") else NORMAL
    expected = UNKNOWN if number == special.unk else CONTROL if number in _ids(special) else NORMAL
    if kind != expected:
        raise BadVocabulary("a piece is of a kind that does not fit its id", where=place, expected=expected, found=kind)
    if expected != NORMAL:
        return text
    if not text.startswith(WORD_START) or WORD_START in text[1:] or len(text) == 1:
        raise BadVocabulary(
            "a piece is not a word", where=place, expected=f"{WORD_START} and a word", found=ascii(text[:40])
        )
    return text[1:]


def _ids(special: SpecialIds) -> Mapping[int, str]:
    return {special.pad: "pad", special.unk: "unk", special.bos: "bos", special.eos: "eos"}
