"""Conversion of pydantic's errors about a config to one error with the nearest key."""

from __future__ import annotations

import difflib

from pydantic import BaseModel, ValidationError

from capprune_runtime.errors import ConfigError


def config_error(
    error: ValidationError, where: str, model: type[BaseModel], above: tuple[str, ...] = ()
) -> ConfigError:
    """Return the first error in a tree as a `ConfigError`.

    Args:
        error: The error of pydantic.
        where: The config's file.
        model: The pydantic model of the tree.
        above: The keys above the tree, if it is a part of a config.
    """
    first = error.errors()[0]
    place = ".".join(str(step) for step in (*above, *first["loc"]))
    if first["type"] == "extra_forbidden":
        names = _names_beside(model, first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(names)}"
        return ConfigError(f"unknown key {place}", where=where, hint=hint)
    if first["type"] == "missing":
        return ConfigError(f"the key {place} is missing", where=where, hint=f"add it, or pass {place}=VALUE")
    return ConfigError(f"invalid value for {place}", where=where, expected=first["msg"], found=repr(first["input"]))


def _names_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the known keys at the position of an unknown one."""
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)
