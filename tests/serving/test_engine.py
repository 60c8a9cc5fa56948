"""The engine of static pages comes in the right version, or a message says how to get it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from axe import require_packages

from capprune.serving.engine import ENGINES, Engine, engine_files
from capprune_runtime.errors import HashMismatch, MissingExtra, UsageError
from serving.static_site import PACKAGES

both = pytest.mark.parametrize("name", ENGINES)


def copy_files(engine: Engine, package: Path, folder: Path) -> None:
    (folder / engine.inner).mkdir(parents=True)
    for name in engine.files:
        shutil.copyfile(package / engine.inner / name, folder / engine.inner / name)


def said(line: str) -> None:
    raise AssertionError(line)


@both
def test_the_package_of_npm_is_taken(name: str, when_absent: Callable[[str, str], None]) -> None:
    require_packages(when_absent)
    assert list(engine_files(ENGINES[name], PACKAGES[name], said)) == list(ENGINES[name].files)


@both
def test_a_filled_cache_is_taken_without_npm(
    name: str, when_absent: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_packages(when_absent)
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = ENGINES[name]
    with pytest.raises(MissingExtra, match="npm") as caught:
        engine_files(engine, None, lambda line: None)
    assert engine.option in str(caught.value)
    copy_files(engine, PACKAGES[name], engine.cache)
    assert engine_files(engine, None, said) == engine_files(engine, PACKAGES[name], said)


@both
def test_another_version_is_refused(name: str, when_absent: Callable[[str, str], None], tmp_path: Path) -> None:
    require_packages(when_absent)
    engine = ENGINES[name]
    copy_files(engine, PACKAGES[name], tmp_path)
    with (tmp_path / engine.inner / next(iter(engine.files))).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(HashMismatch, match=re.escape(engine.version)):
        engine_files(engine, tmp_path, said)


@both
def test_another_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the npm package") as caught:
        engine_files(ENGINES[name], tmp_path, said)
    assert "npm pack" in str(caught.value)


@both
@pytest.mark.slow
def test_npm_fetches_it_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path))
    lines: list[str] = []
    first = engine_files(ENGINES[name], None, lines.append)
    assert len(lines) == 1 and engine_files(ENGINES[name], None, said) == first
