"""The allowed operators, and the accepted inputs and options of each.

They are listed in `operators.json`, which the Android app reads too, so that both accept the same files. The first
lines of that file explain its keys.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TABLE = "operators.json"

# The `struct` code of each type of option; a list has none.
_CODES = {"bool": "?", "int8": "b", "int32": "i", "float32": "f", "int32 list": "vector"}


@dataclass(frozen=True)
class OptionField:
    """One option: its `struct` code (or `vector`), the accepted range, and the schema's default."""

    name: str
    code: str
    low: float
    high: float
    default: int = 0


@dataclass(frozen=True)
class Limit:
    """The limit of one kind of cost, which depends on the size of the file."""

    base: int
    per_byte: int

    def of(self, size_bytes: int) -> int:
        """Return the limit for a file of this size."""
        return self.base + self.per_byte * size_bytes


@dataclass(frozen=True)
class OperatorRule:
    """One operator.

    Args:
        name: The schema's name.
        code: The schema's number.
        versions: The lowest and the highest version, both accepted.
        least_inputs: Smallest number of inputs.
        most_inputs: Largest number of inputs.
        outputs: Number of outputs; 0 if an option sets it.
        constants: Inputs that determine shapes, and so must be stored in the file.
        may_omit: The input that may be -1, if any.
        forms: Accepted forms; see the table's first lines.
        options_type: The schema's number of the options; 0 if there are none.
        options: Fields of the options.
        needs_options: Whether the kernels divide by or index with an option.
    """

    name: str
    code: int
    versions: tuple[int, int]
    least_inputs: int
    most_inputs: int
    outputs: int
    constants: tuple[int, ...]
    may_omit: int | None
    forms: tuple[str, ...]
    options_type: int
    options: tuple[OptionField, ...]
    needs_options: bool


def _option(entry: Mapping[str, Any]) -> OptionField:
    low, high = entry["range"]
    return OptionField(entry["name"], _CODES[entry["type"]], low, high, entry.get("default", 0))


def _rule(entry: Mapping[str, Any]) -> OperatorRule:
    least, most = entry["inputs"]
    oldest, newest = entry["versions"]
    return OperatorRule(
        name=entry["name"],
        code=entry["code"],
        versions=(oldest, newest),
        least_inputs=least,
        most_inputs=most,
        outputs=0 if entry.get("outputs") == "option" else 1,
        constants=tuple(entry.get("constants", ())),
        may_omit=entry.get("may_omit"),
        forms=tuple(entry["forms"]),
        options_type=entry.get("options_type", 0),
        options=tuple(_option(option) for option in entry.get("options", ())),
        needs_options=entry.get("needs_options", False),
    )


def table_bytes() -> bytes:
    """Return the content of the packaged table of allowed operators."""
    return importlib.resources.files("capprune_runtime.tflite").joinpath(TABLE).read_bytes()


def _limit(name: str) -> Limit:
    entry = _TABLE["limits"][name]
    return Limit(entry["base"], entry["per_byte"])


_TABLE = json.loads(table_bytes())
OPERATORS = {rule.name: rule for rule in map(_rule, _TABLE["operators"])}
LIMITS = {name: _limit(name) for name in ("work", "live_bytes", "expanded_bytes", "window_bytes")}
MAX_TABLES = int(_TABLE["limits"]["tables"])  # of one file
MAX_SIGNATURE_ENTRIES = int(_TABLE["limits"]["signature_entries"])
