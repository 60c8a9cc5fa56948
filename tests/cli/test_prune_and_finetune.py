"""`capprune prune`, `capprune finetune` and recipes of stages, as a user types them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from capprune.training.run import read_run
from cli.conftest import Walk, capprune

STAGED = """
name: staged
data: {folder: FOLDER, minimum_count: 1, licence: drawn}
encoder: {size: 64}
decoder: {embedding: 32, hidden: 64, attention: 64, context: 64}
training: {epochs: 1, photos_per_batch: 10, learning_rate: 0.005, validation_photos: 10}
stages:
  - {name: dense}
  - {name: hard, start: dense, pruning: {method: hard, sparsity: 0.7}}
"""


@pytest.fixture(scope="module")
def stages(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    (folder / "recipe.yaml").write_text(STAGED.replace("FOLDER", str(walk.scenes)), encoding="utf-8")
    done = capprune("train", folder / "recipe.yaml", "--out", folder / "runs", "--cache", walk.cache, "--json")
    assert done.code == 0, done.err
    assert done.document["run"] == str(folder / "runs" / "hard")
    assert done.document["sparsity"] == pytest.approx(0.7, abs=1e-3)
    return folder / "runs"


@pytest.mark.slow
def test_a_recipe_trains_its_stages_and_a_second_start_trains_nothing(stages: Path, walk: Walk) -> None:
    assert sorted(path.name for path in stages.iterdir()) == ["dense", "hard"]
    before = (stages / "dense" / "weights.safetensors").stat().st_mtime_ns
    again = capprune("train", stages.parent / "recipe.yaml", "--out", stages, "--cache", walk.cache)
    assert again.code == 0, again.err
    assert (stages / "dense" / "weights.safetensors").stat().st_mtime_ns == before


def test_prune_takes_the_config_of_the_run_and_hits_its_target(stages: Path, walk: Walk, tmp_path: Path) -> None:
    done = capprune(
        "prune", stages / "dense", "pruning.sparsity=0.9", "--method", "lottery",
        "--out", tmp_path / "ticket", "--cache", walk.cache,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "90.00% sparse" in done.out and "capprune export" in done.out
    run = read_run(tmp_path / "ticket")
    assert run.config.start == stages / "dense" and run.config.pruning.method == "lottery"


def test_finetune_keeps_masks_and_its_bundle_names_the_method(stages: Path, walk: Walk, tmp_path: Path) -> None:
    done = capprune(
        "finetune", walk.run, "training.epochs=1", "--objective", "scst",
        "--out", tmp_path / "tuned", "--cache", walk.cache,
    )  # fmt: skip
    assert done.code == 0, done.err
    parent, tuned = read_run(walk.run), read_run(tmp_path / "tuned")
    assert {name: int(mask.sum()) for name, mask in parent.masks.items()} == {
        name: int(mask.sum()) for name, mask in tuned.masks.items()
    }
    assert tuned.method == "supermask"


def test_prune_of_a_folder_that_is_no_run_is_a_usage_error(tmp_path: Path) -> None:
    done = capprune("prune", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert done.code == 2 and "no such run" in done.err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_photos_becomes_a_table_and_pictures(walk: Walk, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        name = f"scene-0000{number}.png"
        (photos / name).write_bytes((walk.scenes / "photos" / name).read_bytes())
    (photos / "broken.jpg").write_bytes(b"no photo")
    done = capprune(
        "caption", photos, "--bundle", walk.bundle, "--out", tmp_path / "said.csv", "--explain", tmp_path / "where"
    )
    assert done.code == 4 and "broken.jpg" in done.err
    with (tmp_path / "said.csv").open(encoding="utf-8") as file:
        rows = {Path(row["photo"]).name: row for row in csv.DictReader(file)}
    assert rows["scene-00000.png"]["caption"] and rows["broken.jpg"]["error"]
    assert sorted(path.name for path in (tmp_path / "where").iterdir()) == ["scene-00000.png", "scene-00001.png"]
