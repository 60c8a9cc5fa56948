"""Parts by name: our own, and those that another package declares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from capprune_runtime.errors import ConfigError, UsageError
from capprune_runtime.registry import Registry

GROUP = "capprune.tests"


class Animal:
    """A kind of part."""


CAT = Animal()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `zoo` that declares four parts."""
    (tmp_path / "zoo.py").write_text("from test_registry import Animal\nDOG = Animal()\nSTONE = 'a stone'\n")
    (tmp_path / "zoo_broken.py").write_text("import nothing_of_this_name\n")
    facts = tmp_path / "zoo-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 1.0\n")
    lines = ("dog = zoo:DOG", "stone = zoo:STONE", "ghost = zoo:GHOST", "broken = zoo_broken:X", "cat = zoo:STONE")
    (facts / "entry_points.txt").write_text(f"[{GROUP}]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("zoo", "zoo_broken"):
        sys.modules.pop(name, None)


def animals(error: type[UsageError] = ConfigError) -> Registry[Animal]:
    return Registry(GROUP, {"cat": CAT, "mouse": "test_registry:CAT"}, "animal", kind=Animal, error=error)


def test_parts_of_ours_are_given_as_they_are_or_as_a_place() -> None:
    assert animals().names() == ("cat", "mouse")
    assert animals().load("cat", "pet") is CAT
    assert isinstance(animals().load("mouse", "pet"), Animal)


@pytest.mark.usefixtures("site")
def test_parts_of_another_package_come_after_ours_and_replace_none() -> None:
    assert animals().names() == ("cat", "mouse", "broken", "dog", "ghost", "stone")
    assert isinstance(animals().load("dog", "pet"), Animal)
    assert animals().load("cat", "pet") is CAT


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("name", "what", "found"),
    [
        ("stone", "stone is no animal", "str"),
        ("ghost", "the animal ghost cannot be loaded", "GHOST"),
        ("broken", "the animal broken cannot be loaded", "nothing_of_this_name"),
        ("dg", "there is no such animal", "dg"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, what: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        animals().load(name, "pet")
    assert caught.value.what == what and found in str(caught.value.found)


@pytest.mark.usefixtures("site")
def test_an_unknown_name_gets_the_nearest_one_and_all_others() -> None:
    with pytest.raises(UsageError) as caught:
        animals(UsageError).load("dg", "--pet")
    assert caught.value.hint == "did you mean dog?" and caught.value.where == "--pet"
    assert caught.value.expected == "cat, mouse, broken, dog, ghost, stone"
    assert not isinstance(caught.value, ConfigError)
