"""Check the values of a results document that a device or a stranger wrote, before anything is computed from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from capprune_runtime.typed_json import Fault, Problem

DEEPEST: Final = 16  # levels of a document, which has 5
LARGEST: Final = 1e15  # of any number; sums of a million of them are still far from infinity
LONGEST_TEXT: Final = 1 << 17  # characters; a caption has at most 1000 tokens

_TIME, _SIZE = "_us", "_bytes"  # ends of keys
_NOT_NEGATIVE = ("count", "loads", "photos", "identical", "beam", "warm_up", "sessions", "threads", "cpu_count")


def first_fault(tree: Any) -> Problem | None:
    """Return the first value that no measurement has; None if there is none.

    Numbers are finite and at most `LARGEST`, times above 0, counts and sizes not below 0. Text is Unicode of at most
    `LONGEST_TEXT` characters. Levels are at most `DEEPEST`.

    Args:
        tree: The result of `strict_json.parse`.
    """
    waiting: list[tuple[str, str, Any, int]] = [("", "", tree, 0)]
    while waiting:
        where, key, value, level = waiting.pop()
        if isinstance(value, dict | list):
            if level == DEEPEST:
                return Problem(Fault.VALUE, where[:80], f"at most {DEEPEST} levels", "more")
            waiting.extend((f"{where}{name}", inner, one, level + 1) for name, inner, one in _parts(value, key))
        elif (expected := _expected(key, value)) is not None:
            return Problem(Fault.VALUE, where.lstrip("."), expected, _short(value))
    return None


def _parts(value: dict[str, Any] | list[Any], key: str) -> Iterator[tuple[str, str, Any]]:
    """Yield for each part (its place in the whole, its key, the part); the items of a list have the list's key."""
    if isinstance(value, dict):
        yield from ((f".{name[:80]}", name, one) for name, one in value.items())
    else:
        yield from ((f"[{number}]", key, one) for number, one in enumerate(value))


def _expected(key: str, value: Any) -> str | None:
    """Return what a value should be, or None if it can be right."""
    if isinstance(value, str):
        return (
            None
            if len(value) <= LONGEST_TEXT and _is_unicode(value)
            else f"at most {LONGEST_TEXT:,} characters of Unicode"
        )
    if value is None or isinstance(value, bool):
        return None
    if not abs(value) <= LARGEST or math.isnan(value):
        return f"a number of at most {LARGEST:.0e}"
    if key.endswith(_TIME) and not value > 0:
        return "a time above 0"
    if (key.endswith(_SIZE) or key in _NOT_NEGATIVE) and value < 0:
        return "0 or more"
    return None


def _is_unicode(text: str) -> bool:
    """Return whether text can be written as UTF-8, which JSON's \\ud800 alone cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:40]!a}, {len(value):,} characters"
    return f"a number of {value.bit_length():,} bits" if isinstance(value, int) and abs(value) > LARGEST else str(value)
