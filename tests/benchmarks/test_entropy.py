"""The benchmark of packed weights: what it measures, and the bars that the figures must clear."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from small_run import Measured

import entropy
import make_results
from decoder_step import Settings, make_step
from entropy import SYNTHETIC, WEIGHTS, matrices_of, measure

pytestmark = pytest.mark.slow

SMALL = Settings(width=64, vocabulary=300, regions=4)

# What the coder is for. The speed is for a bundle as it is, encoder included, in Python.
MOST_RATIO_TO_FLOOR = 1.05
MOST_BYTES_PER_KEPT = {"int8": 1.88, "codebook4": 1.45}
LEAST_MB_PER_S = 20


@pytest.fixture(scope="module")
def document(measured: Measured) -> dict[str, Any]:
    return measure(SMALL, [measured.run], [measured.bundle])


def test_document_has_a_row_for_every_source_and_form(document: dict[str, Any], measured: Measured) -> None:
    found = [(row["source"], row["weights"]) for row in document["rows"]]
    assert found == [(source, weights) for source in (SYNTHETIC, measured.run.name) for weights in WEIGHTS]
    assert (document["schema_version"], document["benchmark"]) == (1, "entropy")
    json.dumps(document, allow_nan=False)


def test_rows_account_for_every_byte(document: dict[str, Any]) -> None:
    for row in document["rows"]:
        words = row["vocabulary_coded_bytes"] or 0
        assert row["coded_bytes"] == sum(tensor["coded_bytes"] for tensor in row["tensors"])
        parts = row["coded_bytes"] + row["bias_coded_bytes"] + row["graph_coded_bytes"] + words
        assert parts == row["packed_bytes"]
        stored = sum(tensor["file_bytes"] for tensor in row["tensors"])
        assert stored + row["bias_bytes"] + row["graph_bytes"] == row["file_bytes"]
        assert row["graph_bytes"] > 0 and row["graph_coded_bytes"] > 0
        assert row["bytes_per_kept"] == row["coded_bytes"] / row["kept"]
        assert row["times_smaller_than_dense"] == row["dense_float32_bytes"] / row["packed_bytes"]


def test_floor_from_the_weights_is_that_of_what_the_file_holds(document: dict[str, Any]) -> None:
    for row in document["rows"]:
        assert row["floor_bytes"] == pytest.approx(sum(tensor["floor_bytes"] for tensor in row["tensors"]), abs=1)
        assert row["ratio_to_floor"] == pytest.approx(row["coded_bytes"] / row["floor_bytes"], rel=1e-3)


def test_every_matrix_of_the_step_is_found_in_the_file(document: dict[str, Any]) -> None:
    matrices = matrices_of(make_step(SMALL))
    tensors = {tensor["name"]: tensor for tensor in document["rows"][0]["tensors"]}
    assert tensors.keys() == matrices.keys() and len(matrices) == 5
    for name, matrix in matrices.items():
        assert [size for size in tensors[name]["shape"] if size > 1] == list(matrix.shape)[-2:] or 1 in matrix.shape


def test_vocabulary_is_on_a_line_of_its_own(document: dict[str, Any], measured: Measured) -> None:
    words = (measured.run / "vocabulary.txt").read_bytes()
    assert document["rows"][0]["vocabulary_bytes"] is None
    assert document["rows"][2]["vocabulary_bytes"] == len(words)
    assert document["rows"][2]["vocabulary_coded_bytes"] == len(zlib.compress(words, 9))


def test_bundle_is_measured_whole(document: dict[str, Any], measured: Measured) -> None:
    (bundle,) = document["bundles"]
    assert bundle["bundle_bytes"] == sum(path.stat().st_size for path in measured.bundle.rglob("*") if path.is_file())
    assert 0 < bundle["packed_bytes"] < bundle["bundle_bytes"] and bundle["decode_mb_per_s"] > 0


def test_packed_weights_of_the_full_size_clear_the_bars() -> None:
    _check_bars(measure(Settings()))


def test_committed_figures_clear_the_bars() -> None:
    path: Path = make_results.RESULTS / "entropy.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert {row["source"] for row in document["rows"]} > {SYNTHETIC}
    _check_bars(document)
    assert document["bundles"] and all(one["decode_mb_per_s"] >= LEAST_MB_PER_S for one in document["bundles"])


def test_json_is_the_only_thing_on_stdout(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measured(*arguments: object) -> dict[str, Any]:
        asked.append(arguments)
        return document

    monkeypatch.setattr(entropy, "measure", measured)
    entropy.main(["--json", "--run", "a", "--bundle", "b", "--hidden", "64", "--vocabulary", "300"])
    assert json.loads(capsys.readouterr().out) == document
    entropy.main([])
    assert "codebook4" in capsys.readouterr().out
    assert asked == [(Settings(width=64, vocabulary=300), [Path("a")], [Path("b")]), (Settings(), [], [])]


def _check_bars(document: dict[str, Any]) -> None:
    settings = document["settings"]
    assert (settings["width"], settings["vocabulary"], settings["sparsity"]) == (512, 10_000, 0.975)
    for row in document["rows"]:
        assert row["ratio_to_floor"] <= MOST_RATIO_TO_FLOOR
        assert row["bytes_per_kept"] <= MOST_BYTES_PER_KEPT[row["weights"]]
