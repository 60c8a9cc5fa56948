"""The reference of config keys, as Markdown made from the pydantic models of `capprune.config`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from capprune.config.decoder import DECODERS
from capprune.config.run import RunConfig

HEAD = ("| key | type | default | meaning |", "|---|---|---|---|")
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def config_reference() -> str:
    """Return a table for every part of a config, with the keys of each decoder family."""
    parts = []
    for title, prefix, model in sections():
        rows = [_row(prefix, name, field) for name, field in model.model_fields.items() if not _is_part(field)]
        summary = (model.__doc__ or "").strip().partition("\n")[0]
        parts.append("\n".join([f"## {title}", "", summary, "", *HEAD, *rows]))
    return "\n\n".join(parts)


def sections() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Yield title, prefix of the keys, and model of every part of a config."""
    yield "Top level", "", RunConfig
    for name, model in _parts(RunConfig, ""):
        if name != "decoder.":
            yield f"`{name[:-1]}`", name, model
            continue
        for family in DECODERS.names():
            kind = DECODERS.load(family, "decoder.family").Config
            yield f"`decoder` of family `{family}`", name, kind
            yield from ((f"`{inner[:-1]}` of family `{family}`", inner, part) for inner, part in _parts(kind, name))


def _parts(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        if _is_part(field):
            inner = f"{prefix}{name}."
            part: type[BaseModel] = field.annotation  # type: ignore[assignment]
            yield inner, part
            if inner != "decoder.":
                yield from _parts(part, inner)
        elif (entry := _entry(field)) is not None:
            yield f"{prefix}{name}[].", entry


def _is_part(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _entry(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of the entries of a list of parts; None for other keys."""
    arguments = get_args(field.annotation)
    if get_origin(field.annotation) is tuple and isinstance(arguments[0], type) and issubclass(arguments[0], BaseModel):
        return arguments[0]
    return None


def _row(prefix: str, name: str, field: FieldInfo) -> str:
    meaning = "the [decoder family](models.md)" if name == "family" else _plain(field.description or "")
    return f"| `{prefix}{name}` | {_kind(field.annotation)}{_limits(field)} | {_default(field)} | {meaning} |"


def _plain(text: str) -> str:
    """Escape text for a cell of a Markdown table; `<` outside code would begin a tag."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def _kind(annotation: Any) -> str:
    """Return the type in terms of YAML."""
    plain = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
    if annotation in plain:
        return plain[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is Union or getattr(origin, "__name__", "") == "UnionType":
        return " or ".join(_kind(one) for one in arguments if one is not type(None))
    if origin is tuple:
        return f"list of {_kind(arguments[0])}" if Ellipsis in arguments else f"{len(arguments)} numbers"
    if origin is not None:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "sections"
    return "path" if getattr(annotation, "__name__", "") == "Path" else str(getattr(annotation, "__name__", annotation))


def _limits(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(one, key)}" for one in field.metadata for key, sign in LIMITS.items() if hasattr(one, key)
    ]
    return f", {' and '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"`{value:.4g}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value not in ((), {}) else "empty"
