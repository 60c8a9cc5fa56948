"""The check of the text finds what it is there for, and nothing in code."""

from __future__ import annotations

import pytest
from proselint.registry import CheckRegistry

from check_prose import CHECKS, PAGES, ROOT, findings, prose


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    CheckRegistry().register_many(CHECKS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The formats are timed in turns.", "interleaved"),
        ("The file is 0.17 times smaller.", "a ratio above 1"),
        ("It computes nonsense without a word.", "without an error"),
        ("This is very unique.", "unique"),
        ("The the model is small.", "repeated"),
    ],
)
def test_a_fault_is_found_with_its_line(text: str, found: str) -> None:
    lines = list(findings("page.md", f"# Title\n\n{text}\n"))
    assert all(line.startswith("page.md:3: ") for line in lines)
    assert any(found in line for line in lines), lines


def test_code_and_links_are_not_checked() -> None:
    page = "Use `in turns`.\n\n```\nin turns\n```\n\n[the page](in-turns.md)\n"
    assert list(findings("page.md", page)) == []
    assert len(prose(page).splitlines()) == len(page.splitlines())


def test_all_pages_pass() -> None:
    pages = [page for pattern in PAGES for page in ROOT.glob(pattern)]
    assert len(pages) > 40
    found = [line for page in pages for line in findings(page.name, page.read_text(encoding="utf-8"))]
    assert found == []
