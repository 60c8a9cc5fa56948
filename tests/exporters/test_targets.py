"""The table of targets."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from capprune_exporters.targets import TARGETS, Target, find_target
from capprune_runtime.errors import UsageError

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: str(target.name))
def test_target_is_found_by_its_name_and_needs_an_extra_that_exists(target: Target) -> None:
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert find_target(target.name) is target
    assert target.extra in extras
    assert target.encoder_weights[0] == "float32"


def test_unknown_target_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="--target") as caught:
        find_target("coreml")
    assert caught.value.expected == ", ".join(target.name for target in TARGETS)
    assert caught.value.found == "coreml"
