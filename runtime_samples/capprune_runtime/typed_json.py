"""Frozen dataclasses from JSON: every field must be present and have its type. Fields marked `OPTIONAL` may be missing."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

OPTIONAL: Mapping[str, Any] = {"optional": True}  # metadata of a field whose key may be missing; it has a default
LARGEST_WHOLE_REAL = 1 << 31  # limit of a whole number where any number is allowed

_NAMES = {int: "a whole number", str: "a string", bool: "true or false"}


class Fault(Enum):
    """Kinds of faults of a key."""

    UNKNOWN = "unknown"
    MISSING = "missing"
    TYPE = "type"
    VALUE = "value"


@dataclass(frozen=True)
class Problem:
    """A missing, unknown or invalid key.

    Attributes:
        fault: Kind of the fault.
        where: The key; empty for the document itself.
        expected: The accepted value, if it can be described.
        found: The actual type.
    """

    fault: Fault
    where: str
    expected: str | None = None
    found: str | None = None


Kind = TypeVar("Kind")
Refuse = Callable[[Problem], Exception]  # returns the error to raise


def read(kind: type[Kind], tree: Any, refuse: Refuse, where: str = "", *, exact: bool = False) -> Kind:
    """Build a dataclass and its nested dataclasses from the result of `json.loads`.

    Args:
        kind: The dataclass. Its fields are str, bool, int, float, Literal, tuple[X, ...], Mapping[str, X], X | None,
            dataclasses, and unions of dataclasses distinguished by a `Literal` field of the same name.
        tree: The JSON object.
        refuse: Returns the error for an invalid key.
        where: The object's own key, for messages.
        exact: Whether unknown keys are refused instead of ignored.
    """
    return kind(**_Reader(refuse, exact).fields(kind, tree, where))


@dataclass(frozen=True)
class _Reader:
    refuse: Refuse
    exact: bool

    def fields(self, kind: type[Any], tree: Any, where: str) -> dict[str, Any]:
        hints = get_type_hints(kind)
        self.require(tree, dict, "an object", where)
        prefix = f"{where}." if where else ""
        if self.exact and (unknown := sorted(tree.keys() - hints.keys())):
            raise self.refuse(Problem(Fault.UNKNOWN, prefix + ascii(unknown[0][:80]), ", ".join(hints)))
        optional = {field.name for field in dataclasses.fields(kind) if field.metadata == OPTIONAL}
        if missing := sorted(hints.keys() - tree.keys() - optional):
            raise self.refuse(Problem(Fault.MISSING, prefix + missing[0]))
        return {name: self.value(hint, tree[name], prefix + name) for name, hint in hints.items() if name in tree}

    def value(self, kind: Any, value: Any, where: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return kind(**self.fields(kind, value, where))
        if origin in (Union, types.UnionType):
            return self.one_of(arguments, value, where)
        if origin is Mapping:
            tree = self.require(value, dict, "an object", where)
            if arguments[1] is Any:
                return tree
            return {name: self.value(arguments[1], one, f"{where}[{name[:80]!a}]") for name, one in tree.items()}
        if origin is tuple:
            items = self.require(value, list, "a list", where)
            return tuple(self.value(arguments[0], one, f"{where}[{number}]") for number, one in enumerate(items))
        if origin is Literal:
            if value not in arguments or type(value) is not str:
                raise self.refuse(Problem(Fault.VALUE, where, " or ".join(arguments)))
            return value
        if kind is float:
            whole = type(value) is int and abs(value) <= LARGEST_WHOLE_REAL  # excludes true, which equals 1
            return float(value) if whole else self.require(value, float, "a number", where)
        return self.require(value, kind, _NAMES[kind], where)

    def one_of(self, kinds: tuple[Any, ...], value: Any, where: str) -> Any:
        if type(None) in kinds:
            (kind,) = (one for one in kinds if one is not type(None))
            return None if value is None else self.value(kind, value, where)
        self.require(value, dict, "an object", where)
        by_name: dict[str, Any] = {}
        for kind in kinds:  # distinguished by the one field that is a Literal
            key, hint = next((key, hint) for key, hint in get_type_hints(kind).items() if get_origin(hint) is Literal)
            by_name |= dict.fromkeys(get_args(hint), kind)
        if key not in value:
            raise self.refuse(Problem(Fault.MISSING, f"{where}.{key}"))
        chosen = by_name.get(value[key]) if isinstance(value[key], str) else None
        if chosen is None:
            raise self.refuse(Problem(Fault.VALUE, f"{where}.{key}", " or ".join(by_name)))
        return self.value(chosen, value, where)

    def require(self, value: Any, kind: type, expected: str, where: str) -> Any:
        if type(value) is not kind:  # not isinstance: true and false are not numbers here
            raise self.refuse(Problem(Fault.TYPE, where, expected, type(value).__name__))
        return value
