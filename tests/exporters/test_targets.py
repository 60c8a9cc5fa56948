"""The table of export targets, and the help texts and extras that go with it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from capprune.cli.export import command
from capprune.extras import COMMANDS
from capprune_exporters.targets.registry import TARGETS
from capprune_exporters.targets.target import find_target
from capprune_exporters.weight_forms import EncoderWeights, Weights
from capprune_runtime.errors import UsageError
from capprune_runtime.formats import FORMATS

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.parametrize("name", TARGETS.own)
def test_target_is_found_by_its_name_and_needs_an_extra_that_exists(name: str) -> None:
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    target = find_target(name)
    assert target.kind in FORMATS and target.summary
    assert target.extra in extras and COMMANDS[f"export --target {name}"] == ("train", target.extra)
    assert target.encoder_weights[0] == "float32" == target.weights[0] and "size" in target.plans


def test_unknown_target_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="--target") as caught:
        find_target("coreml")
    assert caught.value.expected == ", ".join(TARGETS.names())
    assert caught.value.found == "coreml"


@pytest.mark.parametrize("name", [*TARGETS.own, *Weights, *EncoderWeights])
def test_help_names_every_target_and_every_form(name: str) -> None:
    assert name in CliRunner().invoke(command, ["--help"]).output
