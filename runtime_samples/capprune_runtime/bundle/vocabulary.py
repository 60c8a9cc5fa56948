"""The words a model can say: one token a line, its id is the number of the line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from capprune_runtime.bundle.members import read_member
from capprune_runtime.errors import BadVocabulary

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")
MAX_TOKEN_CHARACTERS = 100
MAX_VOCABULARY_BYTES = 16 << 20


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model, in the order of their ids.

    Args:
        tokens: `<pad>`, `<start>`, `<end>`, `<unk>`, then the words.

    Raises:
        BadVocabulary: A special token is not in its place, a token stands twice, is empty, too long, or
            holds a space or a control character.
    """

    tokens: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_tokens(self.tokens)
        object.__setattr__(self, "_ids", {token: number for number, token in enumerate(self.tokens)})

    def __len__(self) -> int:
        return len(self.tokens)

    def id(self, word: str) -> int:
        """The word's id, or that of `<unk>`."""
        return self._ids.get(word, UNKNOWN)

    def caption(self, ids: Iterable[int]) -> str:
        """The words of these ids with spaces between; `<pad>`, `<start>` and `<end>` are left out."""
        return " ".join(self.tokens[number] for number in ids if number not in (PAD, START, END))

    def as_text(self) -> str:
        """The content of vocabulary.txt; `parse_vocabulary` reads it back."""
        return "".join(f"{token}\n" for token in self.tokens)


def parse_vocabulary(text: str, where: object) -> Vocabulary:
    """Read the content of a vocabulary.txt.

    Args:
        text: One token a line, every line ended by a line feed.
        where: The file's name, for messages.

    Raises:
        BadVocabulary: The text or a token breaks a rule; the message names the line.
    """
    if not text.endswith("\n"):
        raise BadVocabulary(
            "the vocabulary does not end with a line feed", where=where, hint="it may have been cut off"
        )
    try:
        return Vocabulary(tuple(text[:-1].split("\n")))
    except BadVocabulary as error:
        error.where = f"{where}, {error.where}"
        raise


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary.txt.

    Raises:
        BadVocabulary: The file is not UTF-8, or a token breaks a rule.
        BundleError: The file is missing, not a plain file or too large.
    """
    return decode_vocabulary(read_member(path.parent, path.name, MAX_VOCABULARY_BYTES), path)


def decode_vocabulary(content: bytes, where: object) -> Vocabulary:
    """Read the bytes of a vocabulary.txt; errors as of `parse_vocabulary`, and BadVocabulary if not UTF-8."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadVocabulary(
            "the vocabulary is not UTF-8", where=f"{where}, byte {error.start}", found=error.reason
        ) from None
    return parse_vocabulary(text, where)


def _check_tokens(tokens: tuple[str, ...]) -> None:
    for number, special in enumerate(SPECIAL_TOKENS):
        found = tokens[number] if number < len(tokens) else "nothing"
        if found != special:
            raise BadVocabulary(
                "a special token is not in its place", where=f"line {number + 1}", expected=special, found=repr(found)
            )
    lines: dict[str, int] = {}
    for line, token in enumerate(tokens, start=1):
        if problem := _problem(token):
            raise BadVocabulary(f"a token {problem}", where=f"line {line}", found=ascii(token[:40]))
        if token in lines:
            raise BadVocabulary(
                "a token stands twice", where=f"line {line}", found=f"{token!r}, first on line {lines[token]}"
            )
        lines[token] = line


def _problem(token: str) -> str | None:
    if not token:
        return "is empty"
    if len(token) > MAX_TOKEN_CHARACTERS:
        return f"is longer than {MAX_TOKEN_CHARACTERS} characters"
    # C: control, format (text direction too), surrogate, unassigned; Z: spaces and line ends.
    if any(unicodedata.category(character)[0] in "CZ" for character in token):
        return "holds a space or a control character"
    return None
