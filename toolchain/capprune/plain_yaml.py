"""A subset of YAML for configs, in which no value is silently dropped or converted to another type.

PyYAML reads YAML 1.1, where `no` is false, `010` is 8, `1:30` is 90 and 2026-01-01 is a date, and it uses the last of two
equal keys. This reader keeps such values as text, and refuses repeated keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import yaml

from capprune_runtime.errors import ConfigError

CONFIG_DEPTH: Final = 16  # levels; configs have four, and PyYAML's time grows quadratically
_TEXT: Final = "tag:yaml.org,2002:str"
_NULL: Final = "tag:yaml.org,2002:null"

IsText = Callable[[tuple[str, ...]], bool]


class _Loader(yaml.SafeLoader):
    """Loader for true and false, decimal numbers and null; everything else is text."""


_Loader.yaml_implicit_resolvers = {}  # not those of YAML 1.1
_RESOLVED: Final = (  # type, pattern, possible first characters
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*)?\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
)
for _type, _pattern, _first in _RESOLVED:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_type}", re.compile(rf"^(?:{_pattern})$"), [*_first])


def plain_yaml(text: str, where: object, texts: IsText | None = None) -> Any:
    """Read YAML without aliases, tags, repeated keys and deep nesting.

    Args:
        text: The YAML.
        where: Its file, or the text itself, for messages.
        texts: Returns whether the value at a path of keys is always text; None if unknown.

    Raises:
        ConfigError: If it is not YAML, or not plain.
    """
    try:
        _refuse_dangers(yaml.parse(text, Loader=_Loader), where)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_tree(node, where, texts, ())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("this is not YAML", where=where, found=" ".join(str(error).split())) from error


def written_text(value: str) -> str | None:
    """Return the value of an override for a text or path key: the text as written, without quotes.

    `key=`, `key=null` and `key=~` give None. A path may start with `~/`.
    """
    if value in ("", "null", "~"):
        return None
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return _at_home(value)


def truth_as_text(tree: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree in which `true` for a number is text, which is then refused; pydantic would read it as 1.

    Args:
        tree: The tree of a config.
        kinds: The type of each key's value.
    """

    def is_number(kind: Any) -> bool:
        kinds_of_it = {kind, *get_args(kind)}
        return bool(kinds_of_it & {int, float}) and bool not in kinds_of_it

    return {
        name: str(value).lower() if isinstance(value, bool) and is_number(kinds.get(name)) else value
        for name, value in tree.items()
    }


def _at_home(text: str) -> str:
    return str(Path(text).expanduser()) if text.startswith("~/") else text


def _refuse_dangers(events: Iterable[yaml.Event], where: object) -> None:
    """Refuse aliases (they can expand without bound), tags (they can name types) and deep nesting (it exhausts the stack)."""
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError("a config must not use YAML aliases", where=where)
        if getattr(event, "tag", None) is not None:
            raise ConfigError("a config must not use YAML tags", where=where)
        if depth > CONFIG_DEPTH:
            raise ConfigError(
                "this config is nested too deeply", where=where, expected=f"at most {CONFIG_DEPTH} levels"
            )


def _check_tree(node: yaml.Node, where: object, texts: IsText | None, path: tuple[str, ...]) -> None:
    """Refuse repeated keys, and mark values of text keys as text."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_tree(item, where, texts, path)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(
                    "a key must not be a list or a tree", where=f"{where}, line {key.start_mark.line + 1}"
                )
            line = key.start_mark.line + 1
            if key.value in lines:
                at = ".".join((*path, key.value))
                raise ConfigError(
                    "a key is repeated", where=f"{where}, {at}", found=f"in lines {lines[key.value]} and {line}"
                )
            lines[key.value] = line
            _check_tree(value, where, texts, (*path, key.value))
    elif isinstance(node, yaml.ScalarNode) and texts is not None and texts(path) and node.tag != _NULL:
        node.tag = _TEXT
        node.value = _at_home(node.value)
