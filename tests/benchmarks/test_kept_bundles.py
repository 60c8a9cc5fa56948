"""Kept bundles are scored against a dense run and timed beside dense int8, and the section tells what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import Measured

from capprune_exporters.pack.capz import pack
from capprune_runtime.errors import UsageError
from kept_bundle_results import kept_bundles_section
from kept_bundles import dense_runs, measure


@pytest.mark.slow
def test_a_bundle_is_compared_with_its_dense_run_and_with_dense_int8(measured: Measured, tmp_path: Path) -> None:
    packed = tmp_path / "small.capz"
    pack(measured.bundle, packed)
    document = measure({"small": packed}, {"small": measured.run}, measured.data, limit=4, rounds=10)
    row = document["rows"][0]
    assert row["bytes"] == packed.stat().st_size and document["data"]["photos"] == 4
    assert row["scores"]["cider_d"] == row["dense"]["scores"]["cider_d"]  # float32 says what torch says
    assert row["step_us"]["low"] <= row["step_us"]["estimate"] <= row["step_us"]["high"] < row["caption_us"]["estimate"]
    assert row["dense_int8_step_us"]["estimate"] != row["step_us"]["estimate"]
    row["change"] = {"estimate": -0.0113, "low": -0.055, "high": 0.034}
    text = kept_bundles_section(document)
    assert "-1.1% [-5.5%, +3.4%]" in text and f"{packed.stat().st_size:,}" in text and "| small |" in text
    assert f"{1 - row['kept_weights'] / row['prunable_weights']:.2%}" in text


def test_each_bundle_has_its_own_dense_run_or_that_of_all() -> None:
    assert dense_runs(["runs/dense", "b=runs/twin"], ["a", "b"]) == {"a": Path("runs/dense"), "b": Path("runs/twin")}
    with pytest.raises(UsageError, match="no bundle has this name"):
        dense_runs(["runs/dense", "c=runs/twin"], ["a", "b"])
    with pytest.raises(UsageError, match="nothing to be compared with"):
        dense_runs(["b=runs/twin"], ["a", "b"])


def test_section_says_how_to_measure_what_is_not_there() -> None:
    assert "benchmarks/kept_bundles.py" in kept_bundles_section(None)
