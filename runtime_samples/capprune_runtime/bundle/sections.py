"""Strict reading of JSON objects into frozen dataclasses: exactly the keys, exactly the types."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from capprune_runtime.errors import BundleError

_Section = TypeVar("_Section")


def read_section(section: type[_Section], tree: Any, where: str) -> _Section:
    """Build a frozen dataclass from a JSON object that has exactly its keys.

    Fields may be text, numbers, tuples, mappings by text, unions with None, unions of dataclasses that a `Literal` field of
    the same name tells apart, and dataclasses themselves.

    Args:
        section: The dataclass.
        tree: The object, as parsed.
        where: Its key in the document, for messages; empty for the document itself.

    Raises:
        BundleError: A key is unknown or missing, or a value has another type; `where` names the key.
    """
    hints = get_type_hints(section)
    _require_type(tree, dict, "an object", where)
    prefix = f"{where}." if where else ""
    if unknown := sorted(tree.keys() - hints.keys()):
        raise BundleError(
            "the manifest has an unknown key", where=prefix + ascii(unknown[0][:80]), expected=", ".join(hints)
        )
    if missing := sorted(hints.keys() - tree.keys()):
        raise BundleError("the manifest lacks a key", where=prefix + missing[0])
    return section(**{key: _value(kind, tree[key], prefix + key) for key, kind in hints.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return read_section(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is Mapping or getattr(origin, "__name__", "") == "Mapping":
        _require_type(value, dict, "an object", where)
        item = arguments[1]
        return (
            value
            if item is Any
            else {name: _value(item, one, f"{where}[{name[:80]!a}]") for name, one in value.items()}
        )
    if origin is tuple:
        items = _require_type(value, list, "a list", where)
        return tuple(_value(arguments[0], one, f"{where}[{number}]") for number, one in enumerate(items))
    if origin is Literal:
        if value not in arguments or type(value) is not str:
            expected = " or ".join(arguments)
            raise BundleError("a value of the manifest is not allowed", where=where, expected=expected)
        return value
    return _plain(kind, value, where)


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if type(None) in kinds:
        (kind,) = (one for one in kinds if one is not type(None))
        return None if value is None else _value(kind, value, where)
    _require_type(value, dict, "an object", where)
    by_name: dict[str, Any] = {}
    for kind in kinds:  # told apart by the one field that is a Literal
        key, hint = next((key, hint) for key, hint in get_type_hints(kind).items() if get_origin(hint) is Literal)
        by_name |= dict.fromkeys(get_args(hint), kind)
    if key not in value:
        raise BundleError("the manifest lacks a key", where=f"{where}.{key}")
    chosen = by_name.get(value[key]) if isinstance(value[key], str) else None
    if chosen is None:
        expected = " or ".join(by_name)
        raise BundleError("a value of the manifest is not allowed", where=f"{where}.{key}", expected=expected)
    return read_section(chosen, value, where)


def _plain(kind: type, value: Any, where: str) -> Any:
    if kind is float:
        whole = type(value) is int and abs(value) <= 1 << 31  # and not true, which equals 1
        return float(value) if whole else _require_type(value, float, "a number", where)
    names = {int: "a whole number", str: "a string", bool: "true or false"}
    return _require_type(value, kind, names[kind], where)


def _require_type(value: Any, kind: type, expected: str, where: str) -> Any:
    if type(value) is not kind:  # not isinstance: true and false are no numbers here
        raise BundleError(
            "a key of the manifest has the wrong type",
            where=where or None,
            expected=expected,
            found=type(value).__name__,
        )
    return value
