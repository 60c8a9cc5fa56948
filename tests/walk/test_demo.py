"""`capprune demo` keeps what the README promises of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TARGET = 0.9


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("demo") / "demo"
    environment = {**os.environ, "CAPPRUNE_CACHE": str(out.parent / "cache")}
    command = [sys.executable, "-m", "capprune", "demo", "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "results.json").read_text()) == json.loads(done.stdout)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_demo_ends_with_a_report_of_one_small_file(document: dict[str, Any]) -> None:
    page = Path(document["report"])
    assert page.name == "report.html" and page.stat().st_size < 3_000_000
    text = page.read_text()
    for heading in ("Captions", "Speed compared with its baselines", "Sparsity of the layers", "Bytes of the decoder"):
        assert f">{heading}</h2>" in text
    assert "Not on this page" not in text  # nothing is missing


def row(document: dict[str, Any], model: str, runs_in: str, weights: str = "float32") -> dict[str, Any]:
    wanted = (model, runs_in, weights)
    return next(one for one in document["rows"] if (one["model"], one["runs_in"], one["weights"]) == wanted)


def test_dense_model_names_shape_and_colour_of_nine_scenes_in_ten(document: dict[str, Any]) -> None:
    assert document["test_scenes"] >= 200
    assert row(document, "dense", "torch")["right"] >= 0.9


def test_sparse_model_reaches_its_target_and_keeps_the_quality(document: dict[str, Any]) -> None:
    dense, sparse = row(document, "dense", "torch"), row(document, "sparse", "torch")
    assert abs(sparse["sparsity"] - TARGET) <= 0.001 and dense["sparsity"] == 0
    assert sparse["cider_d"] >= 0.95 * dense["cider_d"]


@pytest.mark.parametrize("model", ["dense", "sparse"])
def test_exported_captions_are_those_of_torch(document: dict[str, Any], model: str) -> None:
    exported = row(document, model, "ai-edge-litert")
    assert exported["identical"] >= 0.998 * document["test_scenes"]
    assert exported["cider_d"] == pytest.approx(row(document, model, "torch")["cider_d"], rel=0.01)


def test_table_shows_bytes_and_times_and_the_sparse_decoder_is_smaller(document: dict[str, Any]) -> None:
    assert all(one["decoder_bytes"] > 0 and one["step_us"] > 0 for one in document["rows"])
    dense, sparse = row(document, "dense", "ai-edge-litert"), row(document, "sparse", "ai-edge-litert")
    assert sparse["decoder_bytes"] < 0.25 * dense["decoder_bytes"]
    assert sparse["bundle_bytes"] < dense["bundle_bytes"]


def test_the_bundle_to_ship_is_small_and_keeps_the_quality(document: dict[str, Any]) -> None:
    shipped = row(document, "sparse", "ai-edge-litert", "int8")
    assert shipped["bundle_bytes"] <= 5_000_000
    assert shipped["cider_d"] >= 0.98 * row(document, "sparse", "torch")["cider_d"]
    assert shipped["identical"] >= 0.5 * document["test_scenes"]  # int8 takes another word of nearly equal score


def test_the_bundle_to_ship_is_smaller_than_dense_int8(document: dict[str, Any]) -> None:
    own, *baselines = document["baselines"]
    dense = next(baseline for baseline in baselines if baseline["name"] == "tflite dense int8")
    assert own["decoder_bytes"] < 0.5 * dense["decoder_bytes"]
    assert own["step_us"] > 0 and dense["step_us"] > 0  # times are for benchmarks, not for tests
