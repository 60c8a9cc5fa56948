"""The page itself, in both of its forms: by keyboard, on a narrow screen, in the dark, for screen readers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe import BROWSER, require_packages, serious_issues
from browser import Tab, opened

from capprune.ready import READY
from serving.conftest import PHOTO, Served
from serving.static_site import static_site

NARROW = 360
LONGEST_S = 60.0
TAB, ENTER, SPACE, DOWN = ("Tab", 9, "\t"), ("Enter", 13, "\r"), (" ", 32, " "), ("ArrowDown", 40)
FOCUSED = "document.activeElement.id || document.activeElement.value || document.activeElement.tagName"
BUILT = BROWSER.parent / "toolchain" / "capprune" / "serving" / "built"


@pytest.fixture(scope="module", params=["server", "browser"])
def address(
    request: pytest.FixtureRequest,
    server: Served,
    when_absent: Callable[[str, str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    require_packages(when_absent)
    if request.param == "server":
        yield server.address
        return
    with static_site([READY, READY], tmp_path_factory.mktemp("site") / "page") as site:
        yield site.address


@pytest.fixture(scope="module")
def tab(chromium: str, address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One page for all tests: each begins with a photo, which takes away what the last one left."""
    with opened(chromium, address, tmp_path_factory.mktemp("browser"), NARROW) as tab:
        wait(tab, "!document.getElementById('photo').disabled")
        yield tab
        refused = "Failed to load resource: the server responded with a status of 415 (Unsupported Media Type)"
        assert set(tab.complaints) <= {refused}  # the browser's own line on what test_what_is_no_photo provokes


def wait(tab: Tab, condition: str) -> None:
    end = time.monotonic() + LONGEST_S
    while not tab.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, f"the page never came to: {condition}"
        tab.listen(0.1)


def caption(tab: Tab, photo: Path) -> str:
    tab.choose_file("#photo", photo)
    wait(tab, "document.getElementById('rows').children.length")
    return str(tab.evaluate("document.getElementById('caption').textContent"))


def overflow(tab: Tab) -> int:
    return int(tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_a_photo_gets_its_caption_and_every_word_shows_where_the_model_looked(tab: Tab) -> None:
    text = caption(tab, PHOTO)
    words = tab.evaluate("[...document.querySelectorAll('#words button')].map(one => one.textContent)")
    assert text and " ".join(words) == text
    assert tab.evaluate("document.getElementById('status').textContent").startswith(f"{text}.")
    assert tab.evaluate("document.getElementById('image').naturalWidth") > 0
    cells = tab.evaluate("[...document.querySelectorAll('#rows td')].map(one => one.textContent)")
    assert cells[0] == text and float(cells[2]) > 0 and cells[-1] == f"{READY.stat().st_size:,}"
    assert overflow(tab) <= 0


def test_another_model_gets_a_row_of_its_own(tab: Tab) -> None:
    caption(tab, PHOTO)
    tab.evaluate("document.querySelectorAll('input[name=model]')[1].click()")
    wait(tab, "document.getElementById('rows').children.length === 2")
    assert tab.evaluate("document.querySelectorAll('#rows th')[1].textContent") == f"{READY.stem}-2"


def test_it_works_by_keyboard_alone(tab: Tab) -> None:
    caption(tab, PHOTO)
    tab.evaluate("document.querySelector('input[name=model]').checked = true; document.activeElement.blur()")
    seen: list[str] = []
    for _ in range(4):
        tab.press(*TAB)
        seen.append(tab.evaluate(FOCUSED))
    assert seen == [READY.stem, "beam", "photo", "BUTTON"]
    tab.press(*ENTER)
    assert tab.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert tab.evaluate("!document.getElementById('overlay').hidden")
    tab.press(*SPACE)
    assert tab.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    assert tab.evaluate("document.getElementById('overlay').hidden")
    tab.evaluate("document.querySelector('input[name=model]').focus()")
    tab.press(*DOWN)
    wait(tab, "document.getElementById('rows').children.length === 2")


def test_what_is_no_photo_is_named_on_the_page(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("this is no photo")
    tab.choose_file("#photo", tmp_path / "text.txt")
    wait(tab, "!document.getElementById('problem').hidden")
    assert "not a photo" in tab.evaluate("document.getElementById('problem').textContent")
    assert caption(tab, PHOTO) and tab.evaluate("document.getElementById('problem').hidden")


def test_axe_finds_no_serious_issue(tab: Tab) -> None:
    caption(tab, PHOTO)
    tab.evaluate("document.querySelector('#words button').click()")
    for dark in (False, True):
        tab.prefer("color-scheme", "dark" if dark else "light")
        assert serious_issues(tab) == []


def test_axe_sees_issues(chromium: str, when_absent: Callable[[str, str], None], tmp_path: Path) -> None:
    """So that the test above can fail."""
    require_packages(when_absent)
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<title>x</title><img src='data:,'><p style='color: #ccc; background: #fff'>pale</p><button></button>"
    )
    with opened(chromium, bad.as_uri(), tmp_path) as tab:
        found = " ".join(serious_issues(tab))
    assert all(issue in found for issue in ("image-alt", "color-contrast", "button-name", "html-has-lang"))


def test_the_built_files_are_those_of_the_source(when_absent: Callable[[str, str], None], tmp_path: Path) -> None:
    require_packages(when_absent)
    for command in (["npx", "--no-install", "tsc", "--noEmit"], ["node", "build.mjs", str(tmp_path)]):
        done = subprocess.run(command, cwd=BROWSER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    names = sorted(path.name for path in BUILT.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir()) and len(names) == 3
    assert all((BUILT / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)
