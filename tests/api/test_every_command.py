"""Every command has a function with the same options, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import capprune
from capprune.cli.app import COMMANDS, cli

# Commands whose function has another name, and parameters of functions that no option is for
NAMES = {
    "data check": "check_data",
    "data features": "compute_features",
    "data import": "import_data",
    "data scenes": "draw_scenes",
    "data shard": "shard_data",
    "import": "import_",
}
ONLY_IN_PYTHON = {"progress", "each", "started", "command"}
# --isolated, --devices and --nodes start the command once more, in children
ONLY_ON_THE_COMMAND_LINE = {"json", "isolated", "devices", "nodes"}
RENAMED = {"set": "overrides"}  # an option that is the arguments of other commands
# Defaults that the command line writes otherwise
OTHER_DEFAULTS = {("demo", "out"), ("report", "out"), ("verify", "golden")}


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {one}", command.commands[one]) for one in command.commands)
        elif command is not None:
            yield name, command


def options(command: click.Command) -> dict[str, click.Parameter]:
    """The arguments and options of a command by the names that a user types."""
    found = {}
    for parameter in command.params:
        long = [one for one in parameter.opts if one.startswith("--")]
        name = long[0].removeprefix("--").replace("-", "_") if long else parameter.name
        if name and name not in ONLY_ON_THE_COMMAND_LINE:
            found[RENAMED.get(name, name)] = parameter
    return found


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_command_has_a_function_with_its_options_and_defaults(name: str, command: click.Command) -> None:
    function = getattr(capprune, NAMES.get(name, name))
    parameters = inspect.signature(function).parameters
    typed = options(command)
    assert set(parameters) - ONLY_IN_PYTHON == set(typed)
    for key, parameter in typed.items():
        if parameter.required or (name, key) in OTHER_DEFAULTS:
            continue
        default = parameter.to_info_dict()["default"]
        assert parameters[key].default in (default, default or ()), (name, key)


def test_public_names_exist_and_have_a_docstring() -> None:
    for name in set(capprune.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(capprune, name)), name
    assert set(capprune._HOME) | {"__version__"} == set(capprune.__all__) <= set(dir(capprune))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        capprune.trian  # noqa: B018


def test_import_loads_nothing_heavy_and_captioning_loads_no_torch() -> None:
    program = (
        "import sys, capprune\n"
        "early = {'torch', 'numpy', 'PIL', 'pydantic', 'click', 'yaml'} & set(sys.modules)\n"
        "said = capprune.load().caption(sys.argv[1])\n"
        "late = {'torch', 'pydantic', 'yaml', 'click'} & set(sys.modules)\n"
        "print(early or late or said)"
    )
    photo = "docs/gallery/astronaut.jpg"
    done = subprocess.run([sys.executable, "-c", program, photo], capture_output=True, text=True, check=True)
    ours = subprocess.run(
        [sys.executable, "-m", "capprune", "caption", photo], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() and ours.stdout.startswith(done.stdout.strip())


def test_benchmarks_use_the_api_and_no_command() -> None:
    programs = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))
    assert programs
    using = [
        path.name for path in programs if re.search(r"\bcapprune\.cli\b|^import click", path.read_text(), re.MULTILINE)
    ]
    assert using == []
