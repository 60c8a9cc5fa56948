"""The data sets and the measures of left_out.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capprune.data.scenes import draw_scenes
from capprune_runtime.errors import DataError
from left_out import measure, without_classes

ROOT = Path(__file__).parents[2]


def labelled(folder: Path, count: dict[str, int]) -> Path:
    """Draw scenes with `objects`, some with a confidence: one in four is mainly of a pizza, one has it beside a dog."""
    draw_scenes(folder, count=count, seed=2, size=64)
    (path,) = folder.glob("dataset*.json")
    document = json.loads(path.read_bytes())
    for number, image in enumerate(document["images"]):
        generated = image["split"] == "train" and number % 8 >= 4
        if generated:
            image["confidence"] = number / 1000
        names = (["dog", "pizza"], ["pizza"], ["dog"], [])[number % 4]
        image["objects"] = [[name, 1.0] for name in names]
    path.write_text(json.dumps(document))
    return folder


def names(folder: Path) -> dict[str, str]:
    (path,) = folder.glob("dataset*.json")
    return {image["filename"]: image["split"] for image in json.loads(path.read_bytes())["images"]}


def test_photos_with_a_class_are_taken_out_and_those_mainly_of_it_are_a_test(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "scenes", {"train": 12, "val": 4})
    before = names(folder)
    made = without_classes(folder, tmp_path / "work", ["pizza"], None)
    kept, away = names(made), names(without_classes(folder, tmp_path / "work", ["pizza"], "test"))
    assert {name: before[name] for name in kept} == kept and {*away.values()} == {"test"}
    assert (len(kept), len(away)) == (8, 4) and not {*kept} & {*away}
    assert names(folder) == before and without_classes(folder, tmp_path / "work", ["pizza"], None) == made  # again
    with pytest.raises(DataError, match="no photo is left"):
        without_classes(folder, tmp_path / "work", ["zebra"], "test")
    with pytest.raises(DataError, match="one file"):
        without_classes(tmp_path, tmp_path / "work", ["pizza"], None)


@pytest.mark.slow
def test_a_model_without_a_class_is_trained_and_measured(tmp_path: Path) -> None:
    data = tmp_path / "first"
    draw_scenes(data, count={"train": 100, "val": 100, "test": 8}, seed=1, size=64)
    other = labelled(tmp_path / "other", {"train": 16, "val": 8})
    small = {"classes": ["pizza"], "size": 64, "width": 16, "epochs": 1, "of_each_kind": 1, "limit": 4}
    document = measure(data, other, tmp_path / "work", tmp_path / "cache", **small)
    assert {name: row["photos"] for name, row in document["marked"].items()} == {
        "first test": 4,
        "other_without val": 4,
        "known": 8,
        "left out": 4,
        "drawn": 7,
    }
    assert 0 <= document["auroc"]["low"] <= document["auroc"]["estimate"] <= document["auroc"]["high"] <= 1
    assert measure(data, other, tmp_path / "work", tmp_path / "cache", **small) == document  # from what is kept


def test_the_page_states_what_was_measured() -> None:
    page = " ".join((ROOT / "docs" / "ready_model.md").read_text(encoding="utf-8").split())
    found = json.loads((ROOT / "benchmarks" / "results" / "left_out.json").read_text())
    rows = found["marked"]
    for name in ("left out", "flickr8k test", "coco_small_without val"):
        assert f"{rows[name]['unfamiliar'] + rows[name]['not_sure']:.1%}".replace("%", " %") in page, name
    area = found["auroc"]
    assert f"{area['estimate']:.3f} ({area['low']:.3f} to {area['high']:.3f})" in page
