"""Strict JSON: no repeated keys, no NaN, no infinities, no nesting that overflows the stack."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from capprune_runtime.errors import BundleError

MAX_DEPTH = 200


def parse(text: str | bytes) -> Any:
    """Parse one JSON document; bytes must be UTF-8.

    Raises:
        BundleError: The text is not UTF-8, is not JSON, or breaks one of the rules above.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        tree = json.loads(text, object_pairs_hook=_object, parse_float=_number, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BundleError("a JSON file is not UTF-8", where=f"byte {error.start}", found=error.reason) from None
    except json.JSONDecodeError as error:
        raise BundleError(
            "a file is not JSON", where=f"line {error.lineno}, column {error.colno}", found=error.msg
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # an integer with thousands of digits
        raise BundleError("a JSON file holds a number that cannot be read", found=error) from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(tree)
    return tree


def _check_depth(tree: Any) -> None:
    """Refuse what a recursive function, such as the one that writes JSON, could not walk through."""
    level = [tree]
    for _ in range(MAX_DEPTH + 1):
        children = (
            value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)
        )
        level = [child for some in children for child in some]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> BundleError:
    return BundleError("a JSON file is nested too deeply", expected=f"at most {MAX_DEPTH} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise BundleError("a key of a JSON file stands twice", where=ascii(key[:80]))
        tree[key] = value
    return tree


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BundleError("a JSON file holds a number that is too large", found=text[:40])
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise BundleError("a JSON file holds a value that JSON does not have", found=text)
