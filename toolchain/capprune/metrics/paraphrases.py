"""The part of METEOR's table of paraphrases that some captions can use.

METEOR 1.5 reads its whole table at every start: 5.3 million pairs of phrases, about 12 s of CPU time. A pair plays no part
unless the captions contain all of its words, so METEOR gives the same score with the other pairs left out. (Its authors
ship a program for this, `FilterParaphrase`, which filters by one side and takes as long as METEOR itself.)

The parts are kept in the cache: captions of the same photos share nearly all of their words.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from capprune_runtime.atomic import atomic_file, write_bytes
from capprune_runtime.errors import CapPruneError

LINES = 3  # of a pair: probability, phrase, phrase
CHUNK = 1 << 23  # bytes of the table held at once
WIDER_BY = 0.2  # new words, as a share of a kept part's words, up to which the part is widened instead of another made
PARTS = 4  # kept in the cache
IN_USE_S = 3600.0  # a part that is younger is not removed, because another process may be about to read it
WORDS, TABLE = ".words", ".gz"


def words_of(texts: Iterable[str]) -> frozenset[bytes]:
    """Return all words that METEOR may form from tokenised texts.

    METEOR splits tokens at punctuation or removes it, depending on the token and on the words beside it. The result
    contains every outcome.
    """
    words: set[str] = set()
    for token in {token for text in texts for token in text.lower().split()}:
        pieces = re.findall(r"[^\W_]+", token)
        words.update((token, "".join(pieces), *pieces))
    words.discard("")
    return frozenset(word.encode() for word in words)


def paraphrases_for(texts: Iterable[str], table: Path, cache: Path) -> Path:
    """Return a table of paraphrases that contains all pairs which METEOR can use for these texts.

    Args:
        texts: Tokenised captions and references.
        table: METEOR's own table.
        cache: Folder of the parts; made if it is missing.

    Returns:
        A part of the table in the cache, or the whole table if the cache cannot be written.
    """
    words = words_of(texts)
    with contextlib.suppress(OSError, CapPruneError):  # a full disk, a cache of somebody else's
        cache.mkdir(parents=True, exist_ok=True)
        kept = _kept(_identity(table), cache)
        for place, known in kept:
            if words <= known and _is_whole(place):
                place.touch()
                return place
        wider = [known for _, known in kept if len(words - known) <= WIDER_BY * len(known)]
        place = _write(table, words.union(*wider[:1]), cache)
        _remove_old(cache)
        return place
    return table


def _identity(table: Path) -> str:
    """Return the checksum and length of the table's content, which end every gzip file."""
    with table.open("rb") as file:
        file.seek(-8, 2)
        return file.read().hex()


def _name(identity: str, words: bytes) -> str:
    return f"{identity}-{hashlib.sha256(words).hexdigest()}"


def _kept(identity: str, cache: Path) -> list[tuple[Path, frozenset[bytes]]]:
    """Return the parts of a table with their words, the smallest first."""
    found = []
    for path in cache.glob(f"{identity}-*{WORDS}"):
        with contextlib.suppress(OSError):  # removed in between
            listed = path.read_bytes()
            if path.stem == _name(identity, listed):
                found.append((path.with_suffix(TABLE), frozenset(listed.split(b"\n"))))
    return sorted(found, key=lambda one: len(one[1]))


def _is_whole(place: Path) -> bool:
    """Return whether a part is there and undamaged; METEOR would use half a table without a word."""
    try:
        with gzip.open(place) as file:
            while file.read(CHUNK):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True


def _write(table: Path, words: frozenset[bytes], cache: Path) -> Path:
    """Write the part of a table whose pairs consist of some words."""
    listed = b"\n".join(sorted(words))
    place = cache / (_name(_identity(table), listed) + TABLE)
    with atomic_file(place) as temporary, gzip.open(temporary, "wb", compresslevel=1) as file:
        for probability, first, second in _pairs(table, words):
            file.write(b"%b\n%b\n%b\n" % (probability, first, second))
    write_bytes(place.with_suffix(WORDS), listed)
    return place


def _pairs(table: Path, words: frozenset[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield the pairs of a table that consist of some words."""
    fits = words.issuperset
    lines: list[bytes] = []
    with gzip.open(table) as file:
        while chunk := file.read(CHUNK):
            *lines, rest = _joined(lines, chunk)
            whole = len(lines) // LINES * LINES
            for at in range(1, whole, LINES):
                if fits(lines[at].split()) and fits(lines[at + 1].split()):
                    yield lines[at - 1], lines[at], lines[at + 1]
            lines = [*lines[whole:], rest]


def _joined(before: list[bytes], chunk: bytes) -> list[bytes]:
    """Return the lines of a chunk after those that remain of the chunk before; the last one may be cut off."""
    return (b"\n".join(before) + chunk).split(b"\n")


def _remove_old(cache: Path) -> None:
    """Remove the parts that were not used for the longest time."""
    parts = sorted(cache.glob(f"*{TABLE}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in parts[PARTS:]:
        if time.time() - path.stat().st_mtime > IN_USE_S:
            path.with_suffix(WORDS).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
