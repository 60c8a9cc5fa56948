"""`capprune doctor`: what is installed and what this machine can do; installs and changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
from typing import Any

import click

from capprune.cli.console import echo, emit, json_option, table
from capprune.extras import COMMANDS, PACKAGES, install_command, installed_version, missing_packages


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show what is installed and what this machine can do.

    \b
    Example:
      capprune doctor
    """
    found = {name: installed_version(name) for name in PACKAGES}
    java = shutil.which("java")
    able = {name: not missing_packages(name) for name in COMMANDS}
    machine = {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()}
    document: dict[str, Any] = {"machine": machine, "packages": found, "java": java, "commands": able}

    def show() -> None:
        echo(f"{machine['system']}, Python {machine['python']}, {machine['cpus']} CPUs")
        rows = [
            [name, found[name] or "-", package.purpose, "" if found[name] else install_command([package.extra])]
            for name, package in PACKAGES.items()
        ]
        rows.append(["java", java or "-", "METEOR and the PTB tokenizer", "" if java else "any Java 8 or later"])
        table("", ["package", "version", "for", "how to get it"], rows)
        for name, can in able.items():
            echo(f"{'yes' if can else 'no ':4} capprune {name}")

    emit(document, as_json, show)
