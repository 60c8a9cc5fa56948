"""What the app's Java may know of: the core nothing of Android, the app nothing of an interpreter but in its engines."""

from __future__ import annotations

import re
from pathlib import Path

import compile_java
import pytest

from capprune_runtime.photo import ENDINGS

DEMO = Path(__file__).parents[2] / "android_demo"
CORE = sorted((DEMO / "core").rglob("*.java"))
APP = sorted((DEMO / "app" / "src" / "main").rglob("*.java"))
LARGEST = 380  # lines
# The packages of the core in the order in which they may import, as in capprune_runtime; "" is org.capprune.core itself.
ROOMS = ("", "tflite", "bundle", "caption", "measure")


def test_there_are_sources() -> None:
    assert len(CORE) > 40 and len(APP) > 10


@pytest.mark.parametrize("source", CORE, ids=lambda source: source.stem)
def test_core_names_nothing_of_android(source: Path) -> None:
    assert not re.search(r"\b(android|androidx|org\.tensorflow)\.", source.read_text())


@pytest.mark.parametrize(
    "source", [path for path in CORE if "src/main" in path.relative_to(DEMO).as_posix()], ids=lambda source: source.stem
)
def test_packages_of_the_core_import_only_packages_before_them(source: Path) -> None:
    text = source.read_text()
    own = re.search(r"^package org\.capprune\.core\.?(\w*);", text, re.M)
    assert own is not None and own[1] == (source.parent.name if source.parent.name != "core" else "")
    imported = re.findall(r"\borg\.capprune\.core\.([a-z]\w*)\.", text)
    assert all(ROOMS.index(room) < ROOMS.index(own[1]) for room in imported if room != own[1])


@pytest.mark.parametrize("source", APP, ids=lambda source: source.stem)
def test_app_names_no_interpreter(source: Path) -> None:
    assert not re.search(r"org\.tensorflow|NativeEngine", source.read_text())


@pytest.mark.parametrize("source", [*CORE, *APP], ids=lambda source: source.stem)
def test_every_class_says_what_it_is_for_and_fits_on_a_few_screens(source: Path) -> None:
    text = source.read_text()
    is_test = "src/test" in source.as_posix()
    assert is_test or re.search(r"\*/\n(@\w+[^\n]*\n)*(public )?(final |sealed )?(class|record|interface|enum) ", text)
    assert len(text.splitlines()) <= LARGEST


def test_gradle_puts_in_the_table_of_operators_where_the_offline_build_does() -> None:
    gradle = (DEMO / "core" / "build.gradle.kts").read_text()
    source, folder = re.search(r'directory\.file\("(.+?)"\).*?into\("(.+?)"\)', gradle, re.DOTALL | re.I).groups()  # type: ignore[union-attr]
    assert {f"{folder}/{Path(source).name}": (DEMO / source).resolve()} == compile_java.CORE_RESOURCES
    rule = (DEMO / "core/src/main/java/org/capprune/core/tflite/OperatorRule.java").read_text()
    assert [f'"/{name}"' in rule for name in compile_java.CORE_RESOURCES] == [True]


def test_the_app_takes_the_photo_endings_of_python() -> None:
    source = (DEMO / "core/src/main/java/org/capprune/core/measure/PhotoRun.java").read_text()
    endings = re.search(r"ENDINGS = Arrays\.asList\((.+?)\)", source, re.DOTALL).group(1)  # type: ignore[union-attr]
    assert {ending.strip(' "\n') for ending in endings.split(",")} == set(ENDINGS)
