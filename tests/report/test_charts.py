"""Charts as they stand in the page: whole, with their numbers, and out of each other's way."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from capprune.reporting.charts import (
    MOST_SEGMENTS,
    Curve,
    Panel,
    Spread,
    latency_chart,
    layer_chart,
    ledger_chart,
    training_chart,
)

AWKWARD = "a & <b> $x_1$"


def charts() -> dict[str, str]:
    curve = Curve(AWKWARD, [0, 50, 100], [3.0, 2.0, 1.0])
    return {
        "training": training_chart([Panel("loss", [curve]), Panel("sparsity", [curve], percent=True)]),
        "layers": layer_chart([("rnn.weight", 0.97), (AWKWARD, 0.0)], 0.95),
        "ledger": ledger_chart(
            [
                (stage, [(f"tensor {n}", size * (n + 1)) for n in range(9)])
                for stage, size in (("dense", 9e4), ("file", 1e3))
            ]
        ),
        "steps": latency_chart(
            "steps",
            "one step, µs",
            [Spread(AWKWARD, 20, 30, 31, 33, 40, 80), Spread("dense", 200, 210, 220, 230, 300, 900)],
        ),
        "alike": latency_chart("alike", "one step, µs", [Spread("one", 20, 30, 31, 33, 40, 80)]),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return charts()


def text_of(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]


def test_every_chart_is_one_whole_element_that_fetches_nothing(drawn: dict[str, str]) -> None:
    for name, svg in drawn.items():
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg") and root.attrib["role"] == "img" and root.attrib["aria-label"], name
        assert "width" not in root.attrib and "viewBox" in root.attrib
        addresses = {found for found in re.findall(r"https?://[^\"' ]+", svg) if "w3.org" not in found}
        assert not addresses and "<style" not in svg and "font-family" not in svg


def test_names_inside_charts_are_used_and_unlike_those_of_other_charts(drawn: dict[str, str]) -> None:
    found = [name for svg in drawn.values() for name in re.findall(r' id="([^"]+)"', svg)]
    assert found and len(found) == len(set(found))
    for name, svg in drawn.items():
        ids = set(re.findall(r' id="([^"]+)"', svg))
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
        assert ids == used, name


def test_the_same_numbers_give_the_same_bytes(drawn: dict[str, str]) -> None:
    assert charts() == drawn


def test_names_are_shown_as_they_are(drawn: dict[str, str]) -> None:
    for name in ("training", "layers", "steps"):
        assert AWKWARD in text_of(drawn[name]), name


def test_numbers_stand_beside_the_marks(drawn: dict[str, str]) -> None:
    assert {"97.0%", "0.0%", "overall 95.00%"} <= set(text_of(drawn["layers"]))
    assert {"31", "220"} <= set(text_of(drawn["steps"]))
    assert " 4,050,000" in text_of(drawn["ledger"])  # 9e4 · (1 + … + 9)
    assert "all others" in text_of(drawn["ledger"]) and f"tensor {9 - MOST_SEGMENTS - 1}" not in text_of(
        drawn["ledger"]
    )
