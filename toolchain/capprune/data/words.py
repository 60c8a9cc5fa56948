"""The words of captions in any language, and captions as plain text.

Plain tokenization uses lower case and Unicode NFC; everything except letters, their marks and digits separates words.
Scripts without spaces (Chinese, Japanese, Thai and others) give one word per character with its marks. ASCII text gives
the same result as splitting on everything but a-z and 0-9.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from capprune_runtime.bundle.tokens import joined_words, unspaced
from capprune_runtime.bundle.vocabulary import JOINERS
from capprune_runtime.errors import DataError

_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
_ZERO_WIDTH_SPACE: Final = "\u200b"
_REPLACEMENT: Final = "\ufffd"  # replaces a character that could not be decoded
_LETTERS: Final = ("Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Nl")
_MARKS: Final = ("Mn", "Mc")
_UNREADABLE: Final = ("Cs", "Co", "Cn")  # surrogates, private use, unassigned


def words(caption: str) -> tuple[str, ...]:
    """Return the words of a caption, in lower case."""
    text = caption.lower()
    if text.isascii():
        return tuple(filter(None, _SEPARATORS.split(text)))
    return tuple(_split(unicodedata.normalize("NFC", text)))


def plain(caption: str) -> str:
    """Return the words of a caption as one text, with single spaces; no spaces inside scripts without spaces."""
    return joined_words(words(caption))


def require_readable(captions: Iterable[str], where: object) -> None:
    """Raise an error for captions with characters that are not known letters, which would split words.

    Args:
        captions: The captions as written.
        where: The data set, for messages.

    Raises:
        DataError: A caption holds U+FFFD, half a surrogate pair, or a private or unassigned character.
    """
    broken = [caption for caption in captions if not caption.isascii() and not all(map(_readable, caption))]
    if broken:
        raise DataError(
            "captions hold characters that cannot be read",
            where=where,
            expected="letters of Unicode",
            found=f"{len(broken):,} captions, the first {broken[0][:80]!a}",
            hint="the file was once saved or read in another encoding; write it as UTF-8 again",
        )


def _readable(character: str) -> bool:
    return character != _REPLACEMENT and unicodedata.category(character) not in _UNREADABLE


def _split(text: str) -> Iterator[str]:
    """Yield the words of a text in NFC and lower case."""
    word = ""
    for character in text:
        kind = unicodedata.category(character)
        if kind in _LETTERS:
            if word and (unspaced(character) or unspaced(word[0])):
                yield word.rstrip(JOINERS)
                word = ""
            word += character
        elif character in JOINERS or (kind in _MARKS and not _chooses_a_look(character)):
            # a mark or joiner belongs to the letter before it; without a letter it is not a word
            word += character if word and not (character in JOINERS and word[-1].isascii()) else ""
        elif not (_chooses_a_look(character) or (kind == "Cf" and character != _ZERO_WIDTH_SPACE)):
            if word:
                yield word.rstrip(JOINERS)
            word = ""
    if word:
        yield word.rstrip(JOINERS)


def _chooses_a_look(character: str) -> bool:
    """Return whether it is a variation selector, which changes the appearance of a character but not the word."""
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
