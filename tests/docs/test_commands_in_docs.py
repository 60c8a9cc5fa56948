"""Every command that a page shows exists, with the options and the keys that it is shown with."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from capprune.config.decoder import DECODERS
from capprune.config.run import RunConfig
from command_pages import command_of, names, options_of
from doc_pages import ROOT, Block, blocks, commands_of

SHOWN = sorted({(block.page, command) for block in blocks() for command in commands_of(block.text)})


def _parts(command: str) -> tuple[click.Command, list[str]]:
    """The command that a line calls, and its words."""
    first, *words = shlex.split(command.replace("…", ""))
    assert first == "capprune"
    words = [word for word in words if word != "--debug"]
    deep = 2 if words[0] == "data" and len(words) > 1 else 1
    return command_of(" ".join(words[:deep]))[0], words[deep:]


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{page.stem}-{command[:60]}" for page, command in SHOWN])
def test_shown_command_exists_with_its_options(page: Path, command: str) -> None:
    if command.split()[1:] in (["COMMAND", "--help"], ["--version"]):
        return
    found, words = _parts(command)
    known = {name for option in found.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    used = {word.partition("=")[0] for word in words if re.match(r"--\w", word)}
    assert used <= known, f"{page}: {command}"


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{page.stem}-{command[:60]}" for page, command in SHOWN])
def test_shown_override_names_a_key_of_the_config(page: Path, command: str) -> None:
    _, *words = shlex.split(command.replace("…", ""))
    keys = [word.partition("=")[0] for word in words if re.fullmatch(r"[a-z][\w.]*\.\w+=.*", word)]
    grid = [value.partition("=")[0] for name, value in pairwise(words) if name == "--grid" and "=" in value]
    assert [key for key in keys + [one for one in grid if "." in one] if not _is_key(key)] == [], f"{page}: {command}"


def _is_key(key: str) -> bool:
    if key == "decoder.family":
        return True
    models: list[type[BaseModel]] = [RunConfig]
    for part in key.split(".")[:-1]:
        if part == "decoder":
            models = [DECODERS.load(name, key).Config for name in DECODERS.names()]
            continue
        models = [
            kind
            for model in models
            if part in model.model_fields
            and isinstance(kind := model.model_fields[part].annotation, type)
            and issubclass(kind, BaseModel)
        ]
    return any(key.rpartition(".")[2] in model.model_fields for model in models)


def test_a_wrong_key_or_option_is_found() -> None:
    assert _is_key("training.epochs") and _is_key("decoder.hidden") and _is_key("training.reward.samples")
    assert not _is_key("training.epoch") and not _is_key("pruning.hidden")
    with pytest.raises(KeyError):
        command_of("trian")


@pytest.mark.parametrize("name", names())
def test_every_command_has_a_page_with_its_options(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# capprune {name}\n")
    assert f"<!-- options: {name} -->" in page
    assert "`--json`" in options_of(name)


def test_shell_completion_finds_commands_and_options() -> None:
    for words, found in (("capprune va", "validate"), ("capprune caption --exp", "--explain")):
        asked = {"_CAPPRUNE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        command = [sys.executable, "-m", "capprune"]
        done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
        assert done.stdout == f"plain,{found}\n"


def test_blocks_are_found() -> None:
    found = list(blocks())
    assert len(found) > 60 and sum(block.runs for block in found) >= 6
    assert all(isinstance(block, Block) for block in found)
