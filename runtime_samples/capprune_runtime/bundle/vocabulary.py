"""The vocabulary of captions, one word or piece per line, and the conversion of token ids to text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from capprune_runtime.bundle.members import read_member
from capprune_runtime.bundle.tokens import PIECE_SPACE, WORDS, TokensSection, joined_pieces, joined_words
from capprune_runtime.errors import BadVocabulary

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")
MAX_TOKEN_CHARACTERS = 100
MAX_VOCABULARY_BYTES = 16 << 20
MAX_LINES = 1_000_000  # each takes about 200 bytes of memory
JOINERS = "\u200c\u200d"  # zero-width characters that belong to the spelling in Persian and in Indic scripts


@dataclass(frozen=True)
class Vocabulary:
    """The words or pieces of a model, and the meaning of its token ids.

    Ids are line numbers from 0. With radix tokens, ids from 4 on are digits, and two digits are a word.

    Args:
        tokens: `<pad>`, `<start>`, `<end>`, `<unk>`, then the words or pieces.
        coding: The meaning of the token ids.

    Raises:
        BadVocabulary: A special token is misplaced, a token is repeated, empty, too long, or holds a space or a control
            character, or there are more words than radix tokens can number.
    """

    tokens: tuple[str, ...]
    coding: TokensSection = WORDS
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_tokens(self.tokens)
        if self.coding.kind == "radix" and len(self) - len(SPECIAL_TOKENS) > self.coding.base**self.coding.per_word:
            raise BadVocabulary(
                "there are more words than radix tokens can number",
                where=f"base {self.coding.base}",
                expected=f"at most {self.coding.base**self.coding.per_word:,}",
                found=f"{len(self) - len(SPECIAL_TOKENS):,}",
            )
        object.__setattr__(self, "_ids", {token: number for number, token in enumerate(self.tokens)})

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def decoder_size(self) -> int:
        """V, the number of token ids of the decoder."""
        return self.coding.decoder_size(len(self.tokens))

    def described(self) -> str:
        """Return the size and kind as text, such as "2,539 words"."""
        if self.coding.kind == "radix":
            return f"{len(self):,} words in radix {self.coding.base:,}"
        return f"{len(self):,} {self.coding.kind}"

    def id(self, word: str) -> int:
        """Return the line number of a word or piece, or that of `<unk>`."""
        return self._ids.get(word, UNKNOWN)

    def token_ids(self, line: int) -> tuple[int, ...]:
        """Return the token ids of one line: the line number, or its digits, most significant first.

        With radix tokens, `<unk>` becomes its own id, repeated for every digit.
        """
        if self.coding.kind != "radix":
            return (line,)
        special = len(SPECIAL_TOKENS)
        if line < special:
            return (line,) * self.coding.per_word
        return tuple(special + digit for digit in divmod(line - special, self.coding.base))

    def lines(self, ids: Iterable[int]) -> tuple[int, ...]:
        """Return the line numbers for token ids, without `<pad>`, `<start>` and `<end>`.

        With radix tokens, digits of an unused number become `<unk>`, and a single last digit is dropped.
        """
        spoken = [number for number in ids if number not in (PAD, START, END)]
        if self.coding.kind != "radix":
            return tuple(spoken)
        pairs = zip(spoken[::2], spoken[1::2], strict=False)
        return tuple(self._numbered(first, second) for first, second in pairs)

    def caption(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; the only conversion from a search result to a caption."""
        found = (self.tokens[line] for line in self.lines(ids))
        return joined_pieces(found) if self.coding.kind in ("characters", "subwords") else joined_words(found)

    def shown(self, ids: Iterable[int]) -> tuple[str, ...]:
        """Return one text for each token id of a caption, to show beside the token's attention.

        With radix tokens, the first digit of a word is shown as "\u2026", the second one as the word.
        """
        spoken = tuple(ids)
        if self.coding.kind == "radix":
            words = (text for line in self.lines(spoken) for text in ("\u2026", self.tokens[line]))
            return tuple(words) + ("\u2026",) * (len(spoken) % 2)
        return tuple(self.tokens[number].replace(PIECE_SPACE, " ") for number in spoken)

    def _numbered(self, first: int, second: int) -> int:
        special = len(SPECIAL_TOKENS)
        line = special + (first - special) * self.coding.base + second - special
        return line if first >= special and second >= special and line < len(self.tokens) else UNKNOWN

    def as_text(self) -> str:
        """Return the content of vocabulary.txt; `parse_vocabulary` reads it back."""
        return "".join(f"{token}\n" for token in self.tokens)


def parse_vocabulary(text: str, where: object, coding: TokensSection = WORDS) -> Vocabulary:
    """Parse the content of a vocabulary.txt.

    Args:
        text: One token per line, each ended by a line feed.
        where: The file's name, for messages.
        coding: The meaning of the token ids.

    Raises:
        BadVocabulary: The text or a token breaks a rule; the message names the line.
    """
    if not text.endswith("\n"):
        raise BadVocabulary(
            "the vocabulary does not end with a line feed", where=where, hint="it may have been cut off"
        )
    if (lines := text.count("\n")) > MAX_LINES:
        raise BadVocabulary(
            "the vocabulary is too long", where=where, expected=f"at most {MAX_LINES:,} lines", found=lines
        )
    try:
        return Vocabulary(tuple(text[:-1].split("\n")), coding)
    except BadVocabulary as error:
        error.where = f"{where}, {error.where}"
        raise


def read_vocabulary(path: Path, coding: TokensSection = WORDS) -> Vocabulary:
    """Read a vocabulary.txt.

    Raises:
        BadVocabulary: The file is not UTF-8, or a token breaks a rule.
        BundleError: The file is missing, not a plain file or too large.
    """
    return decode_vocabulary(read_member(path.parent, path.name, MAX_VOCABULARY_BYTES), path, coding)


def decode_vocabulary(content: bytes, where: object, coding: TokensSection = WORDS) -> Vocabulary:
    """Decode the bytes of a vocabulary.txt.

    Raises the errors of `parse_vocabulary`, and BadVocabulary if it is not UTF-8.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadVocabulary(
            "the vocabulary is not UTF-8", where=f"{where}, byte {error.start}", found=error.reason
        ) from None
    return parse_vocabulary(text, where, coding)


def _check_tokens(tokens: tuple[str, ...]) -> None:
    for number, special in enumerate(SPECIAL_TOKENS):
        found = tokens[number] if number < len(tokens) else "nothing"
        if found != special:
            raise BadVocabulary(
                "a special token is not in its place", where=f"line {number + 1}", expected=special, found=repr(found)
            )
    seen: set[str] = set()
    for line, token in enumerate(tokens, start=1):
        if problem := _problem(token):
            raise BadVocabulary(f"a token {problem}", where=f"line {line}", found=ascii(token[:40]))
        if token in seen:
            first = tokens.index(token) + 1
            raise BadVocabulary("a token stands twice", where=f"line {line}", found=f"{token!r}, first on line {first}")
        seen.add(token)


def _problem(token: str) -> str | None:
    if not token:
        return "is empty"
    if len(token) > MAX_TOKEN_CHARACTERS:
        return f"is longer than {MAX_TOKEN_CHARACTERS} characters"
    # C: control, format (text direction too), surrogate, unassigned; Z: spaces and line ends. A printable token has none but
    # the space.
    if (" " in token or not token.isprintable()) and any(
        unicodedata.category(character)[0] in "CZ" and not _joins(token, place) for place, character in enumerate(token)
    ):
        return "holds a space or a control character"
    return None


def _joins(token: str, place: int) -> bool:
    """Return whether a character is a zero-width joiner or non-joiner that does not follow an ASCII character."""
    return token[place] in JOINERS and not (place and token[place - 1].isascii())
