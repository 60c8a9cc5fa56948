"""The benchmark of one step: what it measures, and the bars that the committed figures must clear."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import decoder_step
import make_results
from capprune.models.family import IN_STEP
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.sparse import make_sparse
from decoder_step import Settings, make_step, measure
from step_formats import BLOCK, FORMATS

SMALL = Settings(width=64, vocabulary=300, regions=4, rounds=2)

# What the format is for: the whole file against the weights it keeps, and its step against the dense one.
MOST_BYTES_PER_KEPT = 6.5
LEAST_SPEED_UP = 4.5
LEAST_SPEED_UP_OF_BLOCKS = 20.0
LEAST_SPEED_UP_OVER_INT8 = 3.0
FLOAT_ERROR = 1e-5  # absolute; the outputs are of the order of 1
INT8_ERROR = 0.1


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return measure(SMALL)


def test_document_has_a_row_for_every_format(document: dict[str, Any]) -> None:
    assert [row["format"] for row in document["rows"]] == list(FORMATS)
    assert list(FORMATS) == ["dense_float32", "dense_int8", "csr_float32", "block_1x16_int8"]
    assert [row["format"] for row in document["other_regions"]["rows"]] == list(FORMATS)
    for row in document["rows"]:
        assert 0 < row["us_p10"] <= row["us_p50"] <= row["us_p90"]
    assert (document["schema_version"], document["threads"]) == (1, 1)
    assert document["environment"]["runtime"] == "ai-edge-litert"
    json.dumps(document, allow_nan=False)


def test_errors_are_those_of_the_formats(document: dict[str, Any]) -> None:
    dense, int8, sparse, blocks = document["rows"]
    assert dense["max_abs_err"] <= FLOAT_ERROR and sparse["max_abs_err"] <= FLOAT_ERROR
    assert FLOAT_ERROR < int8["max_abs_err"] <= INT8_ERROR
    assert FLOAT_ERROR < blocks["max_abs_err"] <= INT8_ERROR


def test_sparse_row_accounts_for_every_byte(document: dict[str, Any]) -> None:
    dense, _, sparse, _ = document["rows"]
    assert sparse["weight_bytes"] + sparse["graph_bytes"] == sparse["bytes"]
    assert sparse["kept_weights"] == document["kept_weights"]
    assert sparse["bytes_per_kept"] == sparse["bytes"] / sparse["kept_weights"]
    assert 4 * document["prunable_weights"] < dense["bytes"] < 4 * document["prunable_weights"] + 30_000


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_matrix_of_the_step_keeps_the_same_share(cell: str) -> None:
    step = make_step(replace(SMALL, cell=cell))
    matrices = step.decoder.matrices(*IN_STEP)
    assert len(matrices) == (5 if cell == "lstm" else 6)
    for value in matrices.values():
        assert int((value != 0).sum()) == max(1, round(value.numel() * 0.025))


def test_blocks_keep_the_same_share_of_weights() -> None:
    step = make_step(replace(SMALL, width=128), BLOCK)
    for name, value in step.named_parameters():
        if name.endswith(("query.weight", "rnn.weight", "output.weight")):
            blocks = (value != 0).view(len(value), -1, BLOCK)
            assert bool((blocks.all(-1) == blocks.any(-1)).all()), name
            assert float((value != 0).float().mean()) == pytest.approx(0.025, abs=0.01)


def test_same_seed_gives_the_same_weights() -> None:
    first, second = (make_step(SMALL).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_json_is_the_only_thing_on_stdout(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measured(settings: Settings, runs: list[Path]) -> dict[str, Any]:
        asked.append(settings)
        return document

    monkeypatch.setattr(decoder_step, "measure", measured)
    decoder_step.main(["--json", "--repeat", "2", "--hidden", "64", "--vocabulary", "300", "--regions", "4"])
    assert json.loads(capsys.readouterr().out) == document
    decoder_step.main([])
    assert "csr_float32" in capsys.readouterr().out
    assert asked == [SMALL, Settings()]


def test_sparse_file_of_the_full_size_takes_few_bytes_per_kept_weight() -> None:
    step = make_step(Settings())
    kept = sum(int((value != 0).sum()) for value in step.decoder.matrices(*IN_STEP).values())
    sparse = make_sparse(convert(step, "step", step.example()), one_row=True)
    assert sparse.kept == kept
    assert len(sparse.data) <= MOST_BYTES_PER_KEPT * kept


def test_committed_figures_clear_the_bars() -> None:
    document = json.loads((make_results.RESULTS / "decoder_step.json").read_text(encoding="utf-8"))
    assert _settings(document) == replace(Settings(), rounds=document["settings"]["rounds"])
    rows = _by_format(document)
    assert _speed_up(rows, "dense_float32", "csr_float32") >= LEAST_SPEED_UP
    assert _speed_up(rows, "dense_float32", "block_1x16_int8") >= LEAST_SPEED_UP_OF_BLOCKS
    assert _speed_up(rows, "dense_int8", "block_1x16_int8") >= LEAST_SPEED_UP_OVER_INT8
    _check_sizes_and_errors(rows)


@pytest.mark.slow
def test_sizes_and_errors_of_the_full_size_clear_the_bars_here() -> None:
    _check_sizes_and_errors(_by_format(measure(replace(Settings(), rounds=1))))


def _settings(document: dict[str, Any]) -> Settings:
    return Settings(**{key: value for key, value in document["settings"].items() if key != "steps_per_round"})


def _by_format(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["format"]: row for row in document["rows"]}


def _check_sizes_and_errors(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["csr_float32"]["bytes_per_kept"] <= MOST_BYTES_PER_KEPT
    assert rows["csr_float32"]["bytes"] <= 2_600_000 and rows["block_1x16_int8"]["bytes"] <= 1_300_000
    assert rows["csr_float32"]["max_abs_err"] <= FLOAT_ERROR


def _speed_up(rows: dict[str, dict[str, Any]], slow: str, fast: str) -> float:
    return float(rows[slow]["us_p50"] / rows[fast]["us_p50"])
