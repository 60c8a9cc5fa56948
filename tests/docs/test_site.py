"""The site builds without a warning, its links lead somewhere, and reading it needs no request to another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe import require_packages, serious_issues
from browser import opened

from doc_pages import ROOT
from serving.static_site import file_server

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "use": "href"}


class Page(HTMLParser):
    """The links, the ids, and the loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag names."""
        of = {name: value or "" for name, value in attrs}
        self.ids |= {of[key] for key in ("id", "name") if key in of}
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        if tag in LOADED and LOADED[tag] in of:
            self.loaded.append(of[LOADED[tag]])
        if tag == "link" and of.get("rel") != "canonical":
            self.loaded.append(of.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="pip install 'capprune[docs]'")
    place = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_link_leads_to_a_page_and_to_a_place_in_it(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 60
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # served at any address, with absolute links
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                parts.fragment and target.suffix == ".html" and not _has(pages, target, parts.fragment)
            ):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def _has(pages: dict[Path, Page], target: Path, place: str) -> bool:
    return place.startswith("__") or unquote(place) in pages[target].ids


def test_no_page_loads_anything_from_another_host(pages: dict[Path, Page], site: Path) -> None:
    outside = [f"{path.name}: {file}" for path, page in pages.items() for file in page.loaded if urlsplit(file).netloc]
    assert outside == []
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_markers_are_filled_and_drawings_are_in_their_pages(site: Path) -> None:
    text = (site / "validate.html").read_text(encoding="utf-8")
    assert "--max-drop" in text and "<!-- options" not in text
    config = (site / "config.html").read_text(encoding="utf-8")
    assert "<code>training.photos_per_batch</code>" in config and "<!-- config" not in config
    assert "<title>One gate for 16 neighbouring weights</title>" in (site / "concepts" / "blocks.html").read_text()
    assert "Captioner" in (site / "api.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["index.html", "models.html", "serve.html", "api.html", "concepts/supermask.html"])
@pytest.mark.slow_but_for("index.html")
def test_axe_finds_no_serious_issue_in_light_and_dark(
    chromium: str, site: Path, tmp_path: Path, when_absent: Callable[[str, str], None], page: str
) -> None:
    require_packages(when_absent)
    with file_server(site) as address, opened(chromium, address + page, tmp_path, 1000) as tab:
        still = (
            "document.head.appendChild(document.createElement('style')).textContent = '* {transition: none !important}'"
        )
        tab.evaluate(f"{still}; null")  # colours would fade while axe looks at them
        backs = []
        for scheme in ("default", "slate"):  # the names of light and dark in the theme
            tab.evaluate(f"document.body.setAttribute('data-md-color-scheme', '{scheme}')")
            assert serious_issues(tab) == []
            backs.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert backs[0] != backs[1] and tab.complaints == ()
