"""`capprune doctor`: show what is installed and what this machine can do, without any change."""

from __future__ import annotations

import click

from capprune.api.machine import doctor
from capprune.cli.console import echo, emit, json_option, table


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show what is installed and what this machine can do.

    \b
    Example:
      capprune doctor
    """
    machine = doctor()

    def show() -> None:
        echo(f"{machine.system}, Python {machine.python}, {machine.cpus} CPUs")
        table("", *machine.cells())
        for name, can in machine.commands.items():
            echo(f"{'yes' if can else 'no ':4} capprune {name}")

    emit(machine.as_json(), as_json, show)
