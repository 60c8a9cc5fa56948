from __future__ import annotations

from pathlib import Path

import pytest

from capprune.data.scenes import draw_scenes
from capprune_runtime.errors import CapPruneError
from how_many_photos import MOST_EPOCHS, STEPS, config_of, measure


def test_every_run_has_the_same_steps_as_far_as_epochs_allow() -> None:
    def epochs(photos: int) -> int:
        return config_of(Path("data"), photos, steps=STEPS, size=224, seed=1, validation=9).training.epochs

    assert [epochs(count) for count in (250, 1000, 2000, 6000)] == [MOST_EPOCHS, 30, 15, 5]


@pytest.mark.slow
def test_runs_of_few_photos_are_scored_on_the_same_val(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "data", count={"train": 20, "val": 5}, seed=1, size=32)
    sizes = {"steps": 4, "size": 32, "validation": 5}
    document = measure(tmp_path / "data", (10, 20), (1, 2), tmp_path / "cache", tmp_path / "runs", **sizes)
    assert [row["photos"] for row in document["rows"]] == [10, 20]
    assert [[run["epochs"] for run in row["runs"]] for row in document["rows"]] == [[4, 4], [4, 4]]
    assert document["val_photos"] == 5
    for row in document["rows"]:
        assert row["cider_d"] == pytest.approx(sum(run["cider_d"] for run in row["runs"]) / 2, abs=1e-4)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert measure(tmp_path / "data", (10, 20), (1, 2), tmp_path / "cache", tmp_path / "runs", **sizes) == document
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")} == before
    with pytest.raises(CapPruneError, match="too few photos"):
        measure(tmp_path / "data", (21,), (1,), tmp_path / "cache", tmp_path / "runs", **sizes)
