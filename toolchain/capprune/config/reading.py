"""Read a config from YAML, with overrides `key=value`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from capprune.config.decoder import decoder_config
from capprune.config.faults import config_error
from capprune.config.run import RunConfig
from capprune.config.training import OneOrMorePaths
from capprune.plain_yaml import plain_yaml, written_text
from capprune_runtime.errors import ConfigError, UsageError
from capprune_runtime.input_file import open_input

CONFIG_BYTES = 1 << 16  # largest size of a config


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config and apply `key=value` overrides.

    Args:
        path: A YAML file; relative paths in it are relative to the current folder.
        overrides: Such as `training.epochs=3`. The value is read as YAML, or as plain text if the key holds text or a path.

    Raises:
        UsageError: If the file does not exist, or an override is given twice.
        ConfigError: If it is not YAML, or holds an unknown or repeated key, or an invalid value.
    """
    require_single(overrides)
    return parse_config(load_tree(path), overrides, where=str(path))


def load_tree(path: Path) -> dict[str, Any]:
    """Read a config file without checking its keys; see `load_config`."""
    try:
        with io.BufferedReader(open_input(path)) as file:
            content = file.read(CONFIG_BYTES + 1)
        if len(content) > CONFIG_BYTES:
            raise ConfigError("this config is too large", where=path, expected=f"at most {CONFIG_BYTES} bytes")
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise UsageError(
            "there is no such config", where=path, hint="capprune train configs/flickr8k_dense.yaml"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or error
        raise ConfigError("this config cannot be read", where=path, found=found) from error
    tree = plain_yaml(text, path, texts=_is_text)
    if not isinstance(tree, dict):
        raise ConfigError("a config must be a tree of keys", where=path, found=type(tree).__name__)
    return tree


def parse_config(tree: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "config") -> RunConfig:
    """Check a tree and apply overrides, of which the last one wins; see `load_config`."""
    merged: dict[str, Any] = {**tree}
    for override in overrides:
        merged = _overridden(merged, override)
    _move_dropout(merged)
    try:
        if isinstance(merged.get("decoder"), dict):
            merged["decoder"] = decoder_config(merged["decoder"], where)
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise config_error(error, where, RunConfig) from error


def require_single(overrides: Sequence[str]) -> None:
    """Check that the user's overrides name each key once.

    Raises:
        UsageError: A key has two values.
    """
    given: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if given.setdefault(key, value) != value:
            raise UsageError("a key is given twice", where=key, found=f"{given[key]} and {value}", hint="give it once")


def _move_dropout(tree: dict[str, Any]) -> None:
    """Move `training.dropout` of version 0.1 to `decoder.dropout`."""
    training, decoder = tree.get("training"), tree.get("decoder", {})
    if not isinstance(training, dict) or "dropout" not in training or not isinstance(decoder, dict):
        return
    if "dropout" in decoder:
        raise ConfigError("dropout is given twice", where="training.dropout", hint="keep decoder.dropout alone")
    tree["training"] = {key: value for key, value in training.items() if key != "dropout"}
    tree["decoder"] = {**decoder, "dropout": training["dropout"]}


def _overridden(tree: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UsageError("an override is key=value", found=override, expected="such as training.epochs=3")
    path = tuple(part for part in key.split(".") if part != "*" and not part.isdecimal())
    if value.startswith("[") and _kind(path) == OneOrMorePaths:
        read = plain_yaml(value, override, lambda _: True)
    else:
        read = written_text(value) if _is_text(path) else plain_yaml(value, override)
    changed: dict[str, Any] = _changed(tree, "config", key.split("."), read, override)
    return changed


def _changed(tree: Any, name: str, keys: Sequence[str], value: Any, override: str) -> Any:
    """Return a copy of a tree with one value changed. In a list, `*` means each element, and a number that one, from 0."""
    key, *rest = keys
    if isinstance(tree, list):
        chosen = [number for number in range(len(tree)) if key in ("*", str(number))]
        if not chosen:
            expected = f"* for all, or a number below {len(tree)}" if tree else "a config with some"
            raise ConfigError(f"{name} has no such element", where=override, expected=expected, found=key)
        return [
            (_changed(one, key, rest, value, override) if rest else value) if number in chosen else one
            for number, one in enumerate(tree)
        ]
    if key == "*":
        raise ConfigError(f"{name} is not a list", where=override, expected="a list in the config", found=repr(tree))
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{name} is not a tree of keys", where=override, found=repr(tree))
    known = tree or {}
    return {**known, key: _changed(known.get(key), key, rest, value, override) if rest else value}


def _is_text(key: tuple[str, ...]) -> bool:
    """Return whether a key of the tree, or of a tree under `stages`, holds text, a path or paths."""
    if "stages" in key[:1]:
        key = key[1:]
    return _kind(key) in (str, Path, str | None, Path | None, OneOrMorePaths)


def _kind(key: tuple[str, ...]) -> Any:
    """Return the type of a key's value; None if there is no such key."""
    model: type[BaseModel] = RunConfig
    for part in key[:-1]:
        field = model.model_fields.get(part)
        if field is None:
            return None
        below = next(iter(get_args(field.annotation)), field.annotation)  # the type of a list's elements
        if not (isinstance(below, type) and issubclass(below, BaseModel)):
            return None
        model = below
    field = model.model_fields.get(key[-1]) if key else None
    return None if field is None else field.annotation
