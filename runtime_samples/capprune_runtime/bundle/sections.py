"""Strict reading of a manifest's sections: exactly the expected keys and types."""

from __future__ import annotations

from typing import Any, TypeVar

from capprune_runtime import typed_json
from capprune_runtime.errors import BundleError
from capprune_runtime.typed_json import Fault, Problem

_Section = TypeVar("_Section")

_WHAT = {
    Fault.UNKNOWN: "the manifest has an unknown key",
    Fault.MISSING: "the manifest lacks a key",
    Fault.TYPE: "a key of the manifest has the wrong type",
    Fault.VALUE: "a value of the manifest is not allowed",
}


def read_section(section: type[_Section], tree: Any, where: str) -> _Section:
    """Build a frozen dataclass from a JSON object with exactly its keys; see `typed_json.read`.

    Args:
        section: The dataclass.
        tree: The parsed object.
        where: Its key in the document, for messages; empty for the document itself.

    Raises:
        BundleError: A key is unknown or missing, or a value has another type; `where` names the key.
    """
    return typed_json.read(section, tree, _refused, where, exact=True)


def _refused(problem: Problem) -> BundleError:
    return BundleError(
        _WHAT[problem.fault], where=problem.where or None, expected=problem.expected, found=problem.found
    )
