"""Training computes its matrix products in the precision that it was told."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from torch import Tensor, nn


class TypeFoundError(Exception):
    """Ends a training at its first scores."""


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    tiny.trainer(folder, "training.epochs=2").run()
    return folder


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "supermask"])
@pytest.mark.parametrize("objective", ["cross_entropy", "distillation", "scst"])
def test_scores_with_a_gradient_have_the_type_of_the_precision(
    objective: str, sparse: bool, precision: str, teacher: Path, tmp_path: Path
) -> None:
    ways = {
        "cross_entropy": (),
        "distillation": (f"training.distillation.teacher={teacher}",),
        "scst": ("training.objective=scst", "training.reward.cross_entropy=0.3"),
    }
    masks = tiny.SPARSE if sparse else ()
    run = tiny.trainer(tmp_path / "run", *masks, *ways[objective], f"training.precision={precision}")

    def tell_the_type(module: nn.Module, inputs: tuple[Tensor, ...], scores: Tensor) -> None:
        if scores.requires_grad:
            raise TypeFoundError(scores.dtype)

    run.decoder.get_submodule("output").register_forward_hook(tell_the_type)
    with pytest.raises(TypeFoundError) as found:
        run.run()
    assert found.value.args == (PRECISIONS[precision],)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "supermask"])
def test_bfloat16_learns_as_float32_does(sparse: bool, tmp_path: Path) -> None:
    masks = tiny.SPARSE if sparse else ("training.epochs=24",)
    found = {
        precision: tiny.trainer(tmp_path / precision, *masks, f"training.precision={precision}").run().cider
        for precision in PRECISIONS
    }
    assert found["float32"] > 0.8 and found["bfloat16"] > 0.8, found
