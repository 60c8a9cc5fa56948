"""The table of exports holds what each export measured, and keeps the rows of other runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_run import Measured

from capprune_runtime.caption.interpreter import available_runtimes
from export_results import exports_section
from exports import VARIANTS, joined, measure

pytestmark = pytest.mark.slow

WANTED = ("tflite float32", "tflite codebook4, encoder float32", "onnx float32")


@pytest.fixture(scope="module")
def document(measured: Measured) -> dict[str, Any]:
    return measure([measured.run], measured.data, limit=3, photos=2, variants=WANTED)


def test_float_exports_say_what_torch_says_in_every_interpreter(document: dict[str, Any]) -> None:
    assert set(WANTED) < set(VARIANTS)
    rows = {row["variant"]: row for row in document["rows"]}
    assert set(rows) == set(WANTED)
    for name, kind in (("tflite float32", "tflite"), ("onnx float32", "onnx")):
        assert rows[name]["exact"] and rows[name]["parity"].keys() == set(available_runtimes(kind))
        assert all(one["identical"] == one["photos"] == 3 for one in rows[name]["parity"].values())
        assert rows[name]["relative_change"] is None or rows[name]["relative_change"]["estimate"] == 0
    coded = rows["tflite codebook4, encoder float32"]
    assert not coded["exact"] and coded["packed_decoder_bytes"] < rows["tflite float32"]["packed_decoder_bytes"]
    json.dumps(document, allow_nan=False)


def test_rows_of_other_runs_stay_and_those_of_the_same_run_are_replaced(document: dict[str, Any]) -> None:
    other = document | {"rows": [row | {"run": "another"} for row in document["rows"]], "commands": ["first"]}
    both = joined(other, document)
    assert [row["run"] for row in both["rows"]] == [
        *["another"] * len(WANTED),
        *[row["run"] for row in document["rows"]],
    ]
    assert both["commands"] == ["first", *document["commands"]]
    assert joined(document, document) == document
    assert joined(other | {"photos": 4}, document) == document


def test_section_shows_every_row_and_its_command(document: dict[str, Any], tmp_path: Path) -> None:
    text = exports_section(document)
    assert all(f"| {name} |" in text for name in WANTED) and "3 of 3" in text
    assert document["commands"][0] in text and str(tmp_path.parent) not in text
