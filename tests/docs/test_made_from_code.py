"""What the documentation takes from the code: drawings, the config's reference, pages of files outside docs/."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from config_reference import config_reference, sections
from doc_pages import PAGES, ROOT
from drawings import DRAWINGS, PLACE
from outside_files import OutsideFiles
from overview import PLACE as OVERVIEW
from overview import bars


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing_is_what_its_code_draws(name: str) -> None:
    drawn = DRAWINGS[name]()
    assert (PLACE / name).read_text(encoding="utf-8") == drawn, "run: python docs_build/drawings.py"
    assert ElementTree.fromstring(drawn).findtext("{http://www.w3.org/2000/svg}title")


def test_picture_of_the_readme_has_the_committed_figures() -> None:
    picture = OVERVIEW.read_text(encoding="utf-8")
    assert [part for part in bars() if part not in picture] == [], "run: python docs_build/overview.py"
    assert "docs/assets/overview.svg" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_every_key_of_the_config_is_described() -> None:
    bare = [
        f"{prefix}{name}"
        for _, prefix, model in sections()
        for name, field in model.model_fields.items()
        if not field.description and name != "family" and not hasattr(field.annotation, "model_fields")
    ]
    assert bare == []


def test_reference_has_every_part_and_family() -> None:
    text = config_reference()
    for key in (
        "`data.folder`",
        "`pruning.gradual.begin`",
        "`decoder.heads`",
        "`training.reward.samples`",
        "`data.sources[].weight`",
    ):
        assert f"| {key} |" in text
    assert "| `training.epochs` | integer, ≥ 1 | `10` |" in text


def test_links_between_files_of_the_repository_become_links_between_pages() -> None:
    outside = OutsideFiles(ROOT)
    text = "[a](../benchmarks/RESULTS.md#x) [b](train.md) [c](https://example.org/d.md) [e](nowhere/f.py)"
    assert (
        outside.relink(text, "export.md")
        == "[a](results.md#x) [b](train.md) [c](https://example.org/d.md) [e](nowhere/f.py)"
    )
    assert outside.relink("[a](../configs/scenes.yaml)", "train.md") == "[a](sources/scenes.yaml.md)"
    assert outside.relink("[a](../../docs/devices.md)", "tutorials/raspberry_pi.md") == "[a](../devices.md)"
    assert "# configs/scenes.yaml" in outside.pages()["sources/scenes.yaml.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files_of_the_repository(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s#]+)", text) if ":" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
