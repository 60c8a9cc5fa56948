"""The engine of static pages comes in the right version, or a message says how to get it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from axe import require_packages

from capprune.serving.engine import FILES, FOLDER, engine_files
from capprune_runtime.errors import HashMismatch, MissingExtra, UsageError
from serving.static_site import ENGINE


def said(line: str) -> None:
    raise AssertionError(line)


def test_the_package_of_npm_is_taken(when_absent: Callable[[str, str], None]) -> None:
    require_packages(when_absent)
    assert list(engine_files(ENGINE, said)) == list(FILES)


def test_a_filled_cache_is_taken_without_npm(
    when_absent: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_packages(when_absent)
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="npm") as caught:
        engine_files(None, lambda line: None)
    assert "--engine" in str(caught.value)
    shutil.copytree(ENGINE / FOLDER, tmp_path / "litert-js-2.5.3" / FOLDER)
    assert engine_files(None, said) == engine_files(ENGINE, said)


def test_another_version_is_refused(when_absent: Callable[[str, str], None], tmp_path: Path) -> None:
    require_packages(when_absent)
    shutil.copytree(ENGINE / FOLDER, tmp_path / FOLDER)
    with (tmp_path / FOLDER / next(iter(FILES))).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(HashMismatch, match=r"2\.5\.3"):
        engine_files(tmp_path, said)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the npm package") as caught:
        engine_files(tmp_path, said)
    assert "npm pack" in str(caught.value)


@pytest.mark.slow
def test_npm_fetches_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path))
    lines: list[str] = []
    first = engine_files(None, lines.append)
    assert len(lines) == 1 and engine_files(None, said) == first
