"""Reports the installed packages and what this machine can do."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capprune.api.html import html_table
from capprune.extras import COMMANDS, PACKAGES, install_command, installed_version, missing_packages


@dataclass(frozen=True)
class Machine:
    """Installed packages, and the commands that work with them.

    Attributes:
        system: Operating system.
        python: Version of Python.
        cpus: Number of CPUs.
        packages: Version of each package that capprune can use; None if it is not installed.
        java: Path of the Java runtime, which METEOR needs; None without one.
        commands: For each command, whether its packages are installed.
    """

    system: str
    python: str
    cpus: int | None
    packages: Mapping[str, str | None]
    java: str | None
    commands: Mapping[str, bool]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune doctor --json` prints."""
        machine = {"system": self.system, "python": self.python, "cpus": self.cpus}
        found = {"packages": dict(self.packages), "java": self.java, "commands": dict(self.commands)}
        return {"machine": machine, **found}

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns and rows of the table of packages."""
        rows = [
            [name, self.packages[name] or "-", one.purpose, "" if self.packages[name] else install_command([one.extra])]
            for name, one in PACKAGES.items()
        ]
        rows.append(
            ["java", self.java or "-", "METEOR and the PTB tokenizer", "" if self.java else "any Java 8 or later"]
        )
        return ["package", "version", "for", "how to get it"], rows

    def _repr_html_(self) -> str:
        return html_table(f"{self.system}, Python {self.python}, {self.cpus} CPUs", *self.cells())


def doctor() -> Machine:
    """Return the installed packages and what this machine can do. Changes nothing."""
    return Machine(
        system=platform.platform(),
        python=platform.python_version(),
        cpus=os.cpu_count(),
        packages={name: installed_version(name) for name in PACKAGES},
        java=shutil.which("java"),
        commands={name: not missing_packages(name) for name in COMMANDS},
    )
