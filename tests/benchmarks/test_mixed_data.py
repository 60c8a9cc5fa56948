from __future__ import annotations

import json
from pathlib import Path

import pytest

from capprune.data.scenes import draw_scenes
from mixed_data import STEPS, config_of, measure, rows_of


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of which a part has generated captions, as `capprune label` writes them: only for train, with a confidence."""
    folder = tmp_path_factory.mktemp("other") / "mixed"
    draw_scenes(folder, count={"train": 20, "val": 4}, seed=2, size=64)
    (path,) = folder.glob("dataset*.json")
    document = json.loads(path.read_bytes())
    for number, image in enumerate(document["images"]):
        if image["split"] == "train" and number % 2:
            image["confidence"] = number / 20
    path.write_text(json.dumps(document))
    return folder


def test_rows_have_about_the_same_steps(other: Path, tmp_path: Path) -> None:
    draw_scenes(tmp_path / "first", count={"train": 10}, seed=1, size=64)
    rows = rows_of(other)
    epochs = {
        name: config_of(tmp_path / "first", sources, steps=STEPS, size=64, seed=1)["training"]["epochs"]
        for name, sources in rows.items()
    }
    assert epochs["alone"] == STEPS  # 10 photos are a batch
    # 10 photos, 3 times 10 others, and 8 of 10 more: 48 in three batches
    assert epochs[[*rows][-1]] == STEPS / 3


@pytest.mark.slow
def test_every_row_is_scored_on_val_of_both(other: Path, tmp_path: Path) -> None:
    draw_scenes(tmp_path / "first", count={"train": 20, "val": 5}, seed=1, size=64)
    *_, last = names = [*rows_of(Path("a"))]
    sizes = {"steps": 4, "size": 64, "limit": 5, "only": [names[0], last]}
    document = measure(tmp_path / "first", other, tmp_path / "work", tmp_path / "cache", **sizes)
    assert [row["beside"] for row in document["rows"]] == [names[0], last]
    for row in document["rows"]:
        assert [*row["cider_d"]] == ["first", "mixed"]
        assert all(one["low"] <= one["estimate"] <= one["high"] for one in row["cider_d"].values())
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    assert measure(tmp_path / "first", other, tmp_path / "work", tmp_path / "cache", **sizes) == document
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")} == kept
    runs = {*(tmp_path / "work").glob("row-0-*/weights.safetensors")}
    again = {**sizes, "only": [names[0]], "seed": 2}
    assert measure(tmp_path / "first", other, tmp_path / "work", tmp_path / "cache", **again)["seed"] == 2
    assert len(runs) == 1 and len({*(tmp_path / "work").glob("row-0-*/weights.safetensors")} - runs) == 1  # not reused
