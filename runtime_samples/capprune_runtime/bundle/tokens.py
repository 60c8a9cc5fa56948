"""Conversion of token ids to text: the kinds of tokens, and the joining of words and of pieces.

docs/bundle_format.md is the specification; the Java reader follows the same rules.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

PIECE_SPACE = "\u2581"  # represents a space in the pieces of kinds `characters` and `subwords`
RADIX_DIGITS = 2  # tokens per word
RADIX_BASES = range(2, 65_537)

# First and last code points of scripts that are written without spaces between words.
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),  # CJK iteration mark, closing mark, zero
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK
    (0xF900, 0xFAFF),  # CJK compatibility
    (0xFF66, 0xFF9F),  # halfwidth Katakana
    (0x20000, 0x3FFFF),  # CJK extensions B and later
)
_FIRST = [first for first, _ in UNSPACED]


@dataclass(frozen=True)
class TokensSection:
    """The meaning of the decoder's tokens.

    Attributes:
        kind: `words`: a word. `characters`: a code point. `subwords`: a piece of a word. `radix`: a digit of a word's
            number.
        base: Base of `radix` tokens; 0 for the other kinds.
        per_word: Tokens per line of vocabulary.txt: 2 for `radix`, 1 for the other kinds.
    """

    kind: Literal["words", "characters", "subwords", "radix"] = "words"
    base: int = 0
    per_word: int = 1

    def rules(self) -> Iterator[tuple[str, bool, str]]:
        """Yield (key, whether the rule holds, what is expected) for every rule of docs/bundle_format.md."""
        if self.kind == "radix":
            yield "base", self.base in RADIX_BASES, f"{RADIX_BASES.start} to {RADIX_BASES.stop - 1}"
            yield "per_word", self.per_word == RADIX_DIGITS, str(RADIX_DIGITS)
        else:
            yield "base", self.base == 0, "0, as only radix tokens have a base"
            yield "per_word", self.per_word == 1, "1"

    def decoder_size(self, lines: int) -> int:
        """Return V, the number of token ids for `lines` lines of vocabulary.txt, including the 4 special ones."""
        return lines if self.kind != "radix" else self.base + 4


WORDS = TokensSection()


def radix(base: int) -> TokensSection:
    """Return the section of radix tokens."""
    return TokensSection("radix", base, RADIX_DIGITS)


def unspaced(character: str) -> bool:
    """Return whether a character belongs to a script that is written without spaces."""
    place = bisect_right(_FIRST, ord(character)) - 1
    return place >= 0 and ord(character) <= UNSPACED[place][1]


def joined_words(words: Iterable[str]) -> str:
    """Join words with spaces, except between two words of scripts without spaces."""
    text = ""
    for word in words:
        close = not text or (unspaced(text[-1]) and unspaced(word[0]))
        text += word if close else f" {word}"
    return text


def joined_pieces(pieces: Iterable[str]) -> str:
    """Join pieces of words. Runs of `PIECE_SPACE` become one space, and are removed at both ends."""
    return " ".join(filter(None, "".join(pieces).split(PIECE_SPACE)))
