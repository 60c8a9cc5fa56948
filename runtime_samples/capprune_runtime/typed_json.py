"""Frozen dataclasses from JSON: every field there and of its type. Keys that nobody knows are passed over."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")
Refuse = Callable[[str, str, str], Exception]  # (key, expected, found) → the error to raise


def read(kind: type[Kind], tree: Any, refuse: Refuse, where: str = "") -> Kind:
    """Build a dataclass, and those in it, from what `json.loads` gave.

    Args:
        kind: The dataclass; its fields are dataclasses, str, bool, int, float, tuple[X, ...], Mapping[str, X], or X | None.
        tree: The JSON object.
        refuse: Makes the error for a key that is missing or of another type.
        where: The object's own key, for messages.
    """
    if not isinstance(tree, dict):
        raise refuse(where or "the document", "an object", type(tree).__name__)
    prefix = f"{where}." if where else ""
    values = {}
    for name, hint in get_type_hints(kind).items():
        if name not in tree:
            raise refuse(prefix + name, "a value", "nothing")
        values[name] = _value(hint, tree[name], refuse, prefix + name)
    return kind(**values)


def _value(kind: Any, value: Any, refuse: Refuse, where: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (one for one in get_args(kind) if one is not type(None))
        return None if value is None else _value(kind, value, refuse, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return read(kind, value, refuse, where)
    if get_origin(kind) is tuple:
        items = _of_type(value, list, "a list", refuse, where)
        return tuple(_value(get_args(kind)[0], item, refuse, f"{where}[{n}]") for n, item in enumerate(items))
    if get_origin(kind) is Mapping:
        tree = _of_type(value, dict, "an object", refuse, where)
        return {name: _value(get_args(kind)[1], item, refuse, f"{where}[{name[:80]!a}]") for name, item in tree.items()}
    if kind is float:
        return float(value if type(value) is int else _of_type(value, float, "a number", refuse, where))
    return _of_type(value, kind, {int: "a whole number", str: "a string", bool: "true or false"}[kind], refuse, where)


def _of_type(value: Any, kind: type, expected: str, refuse: Refuse, where: str) -> Any:
    if type(value) is not kind:  # not isinstance: true and false are no numbers here
        raise refuse(where, expected, type(value).__name__)
    return value
