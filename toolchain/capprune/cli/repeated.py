"""Detects options that are given twice; click would silently use the last one."""

from __future__ import annotations

from collections.abc import Sequence

import click

from capprune_runtime.errors import UsageError


def refuse_repeated(command: click.Command, arguments: Sequence[str]) -> None:
    """Check that no option with one value is given twice.

    Args:
        command: The command, or a group of commands whose name comes first.
        arguments: The arguments after its name on the command line.

    Raises:
        UsageError: An option is given twice; the message names both values.
    """
    if isinstance(command, click.Group):
        inner = command.commands.get(arguments[0]) if arguments else None
        if inner is not None:
            refuse_repeated(inner, arguments[1:])
        return
    options = {name: option for option in command.params if isinstance(option, click.Option) for name in option.opts}
    given: dict[str, str] = {}
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            return
        name, equals, value = argument.partition("=")
        option = options.get(name)
        if option is None or option.is_flag:
            continue
        value = value if equals else next(left, "")
        if name in given and not option.multiple:
            raise UsageError(
                "an option is given twice", where=name, expected="one value", found=f"{given[name]} and {value}"
            )
        given[name] = value
