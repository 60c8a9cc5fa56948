"""The cost of an ensemble is measured run by run, on tiny runs here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import ensemble_cost
from capprune.config.reading import parse_config
from capprune.data.scenes import draw_scenes
from capprune.training.session import train_run


def test_costs_of_one_and_of_two_runs_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_scenes(tmp_path / "scenes", count={"train": 4, "val": 3, "test": 1}, seed=4, size=64)
    tree = {
        "data": {"folder": str(tmp_path / "scenes"), "minimum_count": 1},
        "decoder": {"family": "show_tell", "embedding": 8, "hidden": 8},
        "training": {"epochs": 1},
    }
    for name, size in (("a", 64), ("b", 32)):
        train_run(parse_config(tree, [f"encoder.size={size}"]), tmp_path / name, tmp_path / "cache")
    arguments = [
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--data",
        str(tmp_path / "scenes"),
        "--rounds",
        "1",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["ensemble_cost.py", *arguments])
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # the tests' own number stays
    ensemble_cost.main()
    found = json.loads(capsys.readouterr().out)
    one, two = found["ensembles"]
    assert (one["runs"], two["runs"]) == (["a"], ["a", "b"]) and (one["encoders"], two["encoders"]) == (1, 2)
    assert two["decoders_mb"] == pytest.approx(2 * one["decoders_mb"], abs=0.1)
    assert all(
        row[name] > 0 for row in (one, two) for name in ("encode_ms", "search_ms", "step_alone_ms", "step_taught_ms")
    )
    assert found["peak_mb"] > 0
