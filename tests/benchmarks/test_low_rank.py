"""The low-rank rival: its rank, the nearest matrices, and that a trained run has them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import capprune
from capprune.data.scenes import draw_scenes
from capprune_runtime.errors import ConfigError
from low_rank import measure, nearest, numbers_at, rank_for


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_nearest_matrix_is_that_of_the_largest_singular_values(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    torch.testing.assert_close(nearest(weight, 3), left[:, :3] @ torch.diag(values[:3]) @ right[:3])
    assert nearest(weight, 12) is weight


def test_rank_is_the_largest_whose_factors_are_small_enough() -> None:
    shapes = [(100, 50), (1, 40)]
    assert numbers_at(shapes, 3) == 3 * 150 + 40
    assert rank_for(shapes, 490 / 5040) == 3 and rank_for(shapes, 489 / 5040) == 2
    assert rank_for(shapes, 1.0) == 50  # nothing is left out
    with pytest.raises(ConfigError, match="no rank is small enough"):
        rank_for(shapes, 0.001)


@pytest.mark.slow
def test_a_trained_run_has_the_rank_and_is_scored(tmp_path: Path) -> None:
    data = tmp_path / "scenes"
    draw_scenes(data, count={"train": 24, "val": 6, "test": 4}, seed=3, size=64)
    sizes = {"embedding": 16, "hidden": 24, "attention": 16, "context": 24}
    config = {
        "name": "dense",
        "data": {"folder": str(data), "minimum_count": 1},
        "encoder": {"size": 64, "grid": 2},
        "decoder": sizes,
        "training": {"epochs": 2, "photos_per_batch": 8, "learning_rate": 1e-2},
    }
    capprune.train(config, out=tmp_path / "dense", cache=tmp_path / "cache")
    document = measure(
        data,
        tmp_path / "dense",
        tmp_path / "low",
        tmp_path / "cache",
        sparsity=0.8,
        overrides=["training.epochs=3"],
        limit=4,
    )
    assert document["rank"] > 1 and document["epochs"] == 3
    assert max(document["ranks"]) == document["rank"] and document["numbers"] <= 0.2 * document["weights"]
    assert {*document["cider_d"]} == {"val", "test"}
