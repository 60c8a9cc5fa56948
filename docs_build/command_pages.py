"""Options of every command, and what each needs installed, as Markdown made from click's own declarations."""

from __future__ import annotations

import click

from capprune.cli.app import COMMANDS as SUMMARIES
from capprune.cli.app import cli
from capprune.extras import COMMANDS as EXTRAS
from capprune.extras import install_command

HEAD = ("| option | meaning |", "|---|---|")


def command_of(words: str) -> tuple[click.Command, click.Context]:
    """Return a command by its words, such as "data check", and a context that knows its full name.

    Raises:
        KeyError: There is no such command.
    """
    command: click.Command = cli
    context = click.Context(cli, info_name="capprune")
    for word in words.split():
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            raise KeyError(f"there is no command capprune {words}")
        command, context = found, click.Context(found, info_name=word, parent=context)
    return command, context


def options_of(words: str) -> str:
    """Return the usage line and the table of options of a command, or of each of its subcommands."""
    command, context = command_of(words)
    if isinstance(command, click.Group):
        return "\n\n".join(options_of(f"{words} {name}") for name in command.list_commands(context))
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    options = [one for one in command.params if isinstance(one, click.Option)]
    records = [record for one in options if (record := one.get_help_record(context))]
    rows = [f"| `{names}` | {_cell(text)} |".replace("|-", "\\|-") for names, text in records]
    return "\n".join(["```text", usage, "```", "", *HEAD, *rows])


def extras_table() -> str:
    """Return the table of commands and of the extras that each needs."""
    rows = [f"| `capprune {key}` | `{install_command(extras)}` |" for key, extras in EXTRAS.items()]
    return "\n".join(["| command | install |", "|---|---|", *rows])


def names() -> list[str]:
    """Return the names of all commands."""
    return list(SUMMARIES)


def _cell(text: str) -> str:
    """Escape text for a cell of a Markdown table, on one line."""
    plain = " ".join(text.split()).replace("<", "&lt;")
    return plain.replace("|", "\\|").replace("[", "\\[")
