"""Training health as a user meets it: on the command line, in the metrics, in `--json` and in `inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capprune.api.demo import COMMON, MODELS
from capprune.data.scenes import draw_scenes
from capprune.training.run import read_metrics
from cases import run

CONFIG = """
data: {folder: FOLDER, minimum_count: 1}
encoder: {size: 32}
decoder: {embedding: 8, hidden: 16, attention: 8, context: 16}
training: {epochs: 2, photos_per_batch: 8, learning_rate: RATE, final_learning_rate: 0}
"""


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    draw_scenes(tmp_path / "scenes", count={"train": 16, "val": 8}, seed=1, size=32)
    return tmp_path / "scenes"


@pytest.mark.slow
def test_a_run_whose_loss_stands_still_says_so_everywhere(scenes: Path, tmp_path: Path) -> None:
    config, folder = tmp_path / "c.yaml", tmp_path / "run"
    config.write_text(CONFIG.replace("FOLDER", str(scenes)).replace("RATE", "1e-9"))
    done = run("train", config, "--out", folder, "--cache", tmp_path / "cache", "--json")
    assert done.code == 0, done.err
    assert done.err.count("warning: the loss stands still") == 1
    assert "likely cause: training.learning_rate=1e-09 is too low" in done.err
    assert "try: training.learning_rate=0.001" in done.err
    warnings = json.loads(done.out)["warnings"]
    assert "loss_stands_still" in {one["kind"] for one in warnings}
    assert read_metrics(folder)[-1]["warnings"] == warnings
    assert json.loads(run("inspect", folder, "--json").out)["warnings"] == warnings
    shown = run("inspect", folder).out
    assert "warning: the loss stands still" in shown and "try: training.learning_rate=0.001" in shown


@pytest.mark.slow
@pytest.mark.parametrize("model", list(MODELS))
def test_the_demo_is_not_warned_of(model: str, tmp_path: Path) -> None:
    draw_scenes(tmp_path / "scenes", count={"train": 600, "val": 60}, seed=1, size=128)
    tree = {**COMMON, **MODELS[model], "data": {**COMMON["data"], "folder": str(tmp_path / "scenes")}}
    (tmp_path / "c.json").write_text(json.dumps(tree))
    done = run("train", tmp_path / "c.json", "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    assert done.code == 0 and "warning" not in done.err, done.err


@pytest.mark.slow
def test_a_short_run_on_real_photos_is_not_warned_of(data_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data: {{folder: {data_folder / 'flickr8k'}, limit: 400}}\nencoder: {{size: 128}}\n"
        "decoder: {embedding: 64, hidden: 128, attention: 64, context: 128}\n"
        "training: {epochs: 2, photos_per_batch: 4, learning_rate: 3e-3, validation_photos: 100}\n"
    )
    done = run("train", config, "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    assert done.code == 0 and "warning" not in done.err, done.err
