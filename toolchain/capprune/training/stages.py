"""A recipe of several runs, each of which can start from earlier ones: one file, one command, one folder of runs.

    stages:
      - {name: dense, training: {epochs: 8}}
      - {name: sparse, start: dense, pruning: {method: supermask}, training: {distillation: {teacher: dense}}}

All other keys apply to every stage, but a stage's own keys override them. A run is named after the
recipe and its stage. `start`, `encoder.start`, `data.vocabulary` and teachers name an earlier stage or a run's folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune_runtime.errors import ConfigError

STAGES = "stages"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Stage:
    """One run of a recipe."""

    name: str
    folder: Path
    config: RunConfig


def is_recipe(tree: Mapping[str, Any]) -> bool:
    """Return whether a config holds stages."""
    return STAGES in tree


def read_stages(tree: Mapping[str, Any], overrides: Sequence[str], out: Path, *, where: str) -> list[Stage]:
    """Return the runs of a recipe, in order.

    Args:
        tree: Content of the file.
        overrides: `key=value`, for every stage.
        out: The folder of the runs.
        where: The file, for messages.

    Raises:
        ConfigError: A stage has an invalid or a duplicate name, names a later stage, or is not a valid config.
    """
    listed = tree[STAGES]
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        raise ConfigError("stages are a list of trees with a name each", where=where, found=repr(listed)[:60])
    common = {key: value for key, value in tree.items() if key != STAGES}
    found: list[Stage] = []
    for own in listed:
        name = own.get("name")
        known = {stage.name: stage.folder for stage in found}
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in known:
            raise ConfigError(
                "a stage needs a unique name",
                where=where,
                expected="lower-case letters, digits, - and _",
                found=name,
            )
        later = {one.get("name") for one in listed} - set(known)
        full = f"{common['name']}-{name}" if "name" in common else name
        merged = _named({**_merged(common, own), "name": full}, known, later, f"{where}: stage {name}")
        found.append(Stage(name, out / name, parse_config(merged, overrides, where=f"{where}: stage {name}")))
    return found


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two trees; the stage's own values override common ones."""
    merged = {**common}
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _named(tree: dict[str, Any], known: Mapping[str, Path], later: set[Any], where: str) -> dict[str, Any]:
    """Replace the stages that a tree names by their folders."""

    def folder(name: Any) -> Any:
        if isinstance(name, list):
            return [folder(one) for one in name]
        if name in later:
            raise ConfigError("a stage can only build on stages before it", where=where, found=name)
        return str(known[name]) if name in known else name

    changed = _replaced(tree, ("start",), folder)
    changed = _replaced(changed, ("encoder", "start"), folder)
    changed = _replaced(changed, ("data", "vocabulary"), folder)
    return _replaced(changed, ("training", "distillation", "teacher"), folder)


def _replaced(tree: dict[str, Any], keys: Sequence[str], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the tree with one value changed, if it exists."""
    first, *rest = keys
    value = tree.get(first)
    if value is None or (rest and not isinstance(value, dict)):
        return tree
    return {**tree, first: _replaced(value, rest, change) if rest else change(value)}
