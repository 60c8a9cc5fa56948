"""Without the extra a report is refused before any work, and the demo goes without one and says so."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from capprune import reporting
from capprune.api import demo
from capprune.api.pages import report as write_report
from capprune.cli.progress import TerminalProgress
from capprune_runtime.errors import MissingExtra


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> Any:
        return None if name == "matplotlib" else importlib.util.find_spec(name)

    monkeypatch.setattr(reporting, "find_spec", find_spec)


@pytest.mark.usefixtures("no_matplotlib")
def test_a_report_without_matplotlib_names_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra) as refused:
        write_report([tmp_path / "nothing"], out=tmp_path / "report.html")
    assert refused.value.found == "no matplotlib" and "capprune[report]" in str(refused.value.hint)


@pytest.mark.usefixtures("no_matplotlib")
def test_a_demo_without_matplotlib_ends_without_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo._report(tmp_path, tmp_path / "scenes", {}, TerminalProgress()) is None
    assert "no report:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_with_the_extra_nothing_is_refused() -> None:
    reporting.require_extra()
