"""`capprune report`: one page that a browser opens without a complaint and without asking anybody for anything."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from axe import require_packages, serious_issues
from browser import opened, visit

from capprune_exporters.bundle import record_quality
from capprune_runtime.bundle.verify import verify_bundle
from cli.conftest import Walk, capprune

pytestmark = pytest.mark.slow

SECTIONS = ["photos", "speed", "quality", "layers", "training", "ledger", "environment", "repeat"]
FACTS = """({
    sections: [...document.querySelectorAll('section')].map(one => one.id),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    charts: [...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().height),
    photos: [...document.images].map(one => one.complete && one.naturalWidth),
    title: document.title,
    scripts: document.scripts.length,
})"""


@pytest.fixture(scope="module")
def sources(walk: Walk) -> list[Path]:
    """Everything that a report is made from."""
    validation, bench = walk.folder / "validation.json", walk.folder / "bench.json"
    done = capprune(
        "validate", walk.bundle, "--data", walk.scenes, "--reference", walk.run, "--max-drop", "90%", "--json"
    )
    assert done.code == 0, done.err
    validation.write_text(done.out)
    done = capprune("bench", walk.bundle, "--baselines", "--rounds", 12, "--json")
    assert done.code == 0, done.err
    bench.write_text(done.out)
    return [walk.run, walk.bundle, validation, bench]


@pytest.fixture(scope="module")
def page(walk: Walk, sources: list[Path]) -> Path:
    out = walk.folder / "report.html"
    title = "<b>A title & more</b>"
    done = capprune("report", *sources, "--data", walk.scenes, "--photos", 5, "--title", title, "--out", out, "--json")
    assert done.code == 0, done.err
    assert done.document["report"] == str(out)
    assert done.document["bytes"] == out.stat().st_size < 3_000_000
    return out


@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_opens_it_without_a_complaint_or_a_request(
    chromium: str, page: Path, tmp_path: Path, width: int
) -> None:
    seen = visit(chromium, page, tmp_path, FACTS, width)
    assert seen.complaints == ()
    assert seen.requests[0] == page.resolve().as_uri()
    assert all(address.startswith("data:") for address in seen.requests[1:])
    facts = seen.facts
    assert facts["sections"] == SECTIONS
    assert facts["overflow"] <= 0  # wide tables and charts scroll by themselves
    assert len(facts["charts"]) == 5 and min(facts["charts"]) > 100
    assert len(facts["photos"]) == 5 and all(facts["photos"])
    assert facts["title"] == "<b>A title & more</b>" and facts["scripts"] == 0


def test_axe_finds_no_serious_issue_in_light_and_dark(
    chromium: str, page: Path, tmp_path: Path, when_absent: Callable[[str, str], None]
) -> None:
    require_packages(when_absent)
    colour = "getComputedStyle(document.body).backgroundColor"
    with opened(chromium, page.resolve().as_uri(), tmp_path, 360) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        backs = []
        for theme in ("light", "dark"):
            tab.prefer("color-scheme", theme)
            assert serious_issues(tab) == []
            backs.append(tab.evaluate(colour))
        assert backs[0] != backs[1]
        tab.prefer("color-scheme", "dark", medium="print")
        assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(28, 30, 33)"  # dark ink on paper


def test_every_chart_has_its_table_and_the_keyboard_reaches_all(chromium: str, page: Path, tmp_path: Path) -> None:
    with opened(chromium, page.resolve().as_uri(), tmp_path) as tab:
        counts = tab.evaluate(
            "[...document.querySelectorAll('section')].filter(one => one.querySelector('svg'))"
            ".map(one => [one.id, one.querySelectorAll('svg').length, one.querySelectorAll('table').length])"
        )
        assert [name for name, _, _ in counts] == ["speed", "layers", "training", "ledger"]
        assert all(tables for _, _, tables in counts)
        seen = []
        for _ in range(60):
            tab.press("Tab", 9)
            seen.append(
                tab.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
            )
        assert seen[0] == "Skip to the content"
        order = [seen.index(f"{title}: chart") for title in ("Speed compared with its baselines", "Training")]
        assert order == sorted(order) and "Sparsity of the layers: table" in seen


def test_the_browser_sees_requests_and_complaints(chromium: str, tmp_path: Path) -> None:
    """So that the test above can fail."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='https://example.org/a.png'><script>console.error('oh'); throw new Error('no')</script>")
    seen = visit(chromium, bad, tmp_path, "1 + 1")
    assert "https://example.org/a.png" in seen.requests
    assert any("oh" in one for one in seen.complaints) and any("Error: no" in one for one in seen.complaints)
    assert seen.facts == 2


def test_it_shows_what_was_measured(page: Path, sources: list[Path], walk: Walk) -> None:
    text = page.read_text()
    validation, bench = (json.loads(path.read_text()) for path in sources[2:])
    assert "equals the trained model" in text
    assert f"{validation['bundle']['total_bytes']:,}" in text
    assert f"{validation['quality']['scores']['cider_d']:.3f}" in text
    for name in bench["names"]:
        assert f'<th scope="row">{name}</th>' in text
    assert "capprune train" in text and "--title &#39;&lt;b&gt;A title &amp; more&lt;/b&gt;&#39;" in text
    said = {one["photo"]: one["caption"] for one in validation["captions"]}
    shown = [name for name in said if f"<figcaption>{name}</figcaption>" in text]
    assert len(shown) == 5
    words = capprune("caption", walk.scenes / shown[0], "--bundle", walk.bundle).out.split()
    assert " ".join(words) in " ".join(text.replace("<mark>", "").replace("</mark>", "").split())


def test_a_bundle_alone_makes_a_page_that_names_what_it_lacks(walk: Walk, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = capprune("report", walk.bundle, "--out", out)
    assert done.code == 0 and f"written: {out}" in done.out
    text = out.read_text()
    assert "The photos of the bundle." in text and text.count("data:image/jpeg") == 4
    for what in ("give the run", "capprune validate --json", "capprune bench --baselines --json"):
        assert what in text


def test_quality_that_was_recorded_in_the_bundle_is_shown(sources: list[Path], tmp_path: Path) -> None:
    document = {
        key: value for key, value in json.loads(sources[2].read_text()).items() if key not in ("captions", "failures")
    }
    bundle = verify_bundle(sources[1])
    record_quality(
        dataclasses.replace(bundle, place=Path(shutil.copytree(bundle.place, tmp_path / "bundle"))), document
    )
    done = capprune("report", tmp_path / "bundle", "--photos", 1, "--out", tmp_path / "report.html")
    assert done.code == 0, done.err
    text = (tmp_path / "report.html").read_text()
    assert "equals the trained model" in text and f"{document['quality']['scores']['cider_d']:.3f}" in text
    assert "Speed without baselines" in text and "<svg" in text  # percentiles without a chart; the ledger has one


def test_what_is_no_source_is_named_and_no_page_is_written(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    done = capprune("report", tmp_path / "results.json", "--out", tmp_path / "report.html")
    assert done.code == 4 and "not a results document" in done.err
    assert not (tmp_path / "report.html").exists()
