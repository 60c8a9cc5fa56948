"""Every decoder family with weights pruned in blocks, and the larger encoders, in Python and Java."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from desktop_jvm import DesktopJvm
from family_training import LSTMS, SIZES, TRANSFORMERS, bundle_of, capprune, same_in_java, trained

from capprune.config.decoder import DECODERS

pytestmark = pytest.mark.slow


def test_no_family_is_left_out() -> None:
    assert sorted((*LSTMS, *TRANSFORMERS)) == sorted(SIZES) == sorted(DECODERS.names())


@pytest.mark.parametrize("family", DECODERS.names())
def test_blocks_run_in_python_and_java(family: str, scenes: Path, jvm: DesktopJvm, tmp_path: Path) -> None:
    sparsity = 0.9 if family == "show_tell" else 0.7  # fewer matrices: at 0.7 dense int8 is as small
    blocks = ("pruning.block=1x16", f"pruning.sparsity={sparsity}", "training.epochs=4")
    (tmp_path / family).mkdir()
    run = trained(scenes, tmp_path / family, f"decoder.family={family}", *SIZES[family], *blocks, learns=0.3)
    place = bundle_of(run, "tflite", "int8")
    plan = json.loads((place / "plan.json").read_text())
    assert "block_1x16_int8" in {line["form"] for line in plan["lines"]}, plan
    (tmp_path / "photos").mkdir()
    same_in_java(place, scenes, jvm, tmp_path / "photos", least_different=2)


@pytest.mark.parametrize(("encoder", "size"), [("efficientnet_lite1", 240), ("efficientnet_lite2", 260)])
def test_larger_encoders_are_exported_to_the_end(encoder: str, size: int, jvm: DesktopJvm, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    capprune("data", "scenes", "--size", size, "--train", 60, "--val", 10, "--test", 20, "--out", scenes)
    (tmp_path / encoder).mkdir()
    here = (f"encoder.name={encoder}", f"encoder.size={size}", "training.epochs=25", "pruning.method=none")
    run = trained(scenes, tmp_path / encoder, *SIZES["show_tell"], "decoder.family=show_tell", *here, learns=0.1)
    for target in ("tflite", "onnx"):
        place = bundle_of(run, target, "float32")
        validated = capprune("validate", place, "--data", scenes, "--reference", run)
        (parity,) = validated["parity"].values()
        assert parity["holds"] and parity["identical"] == 20, parity
    (tmp_path / "photos").mkdir()
    same_in_java(bundle_of(run, "tflite", "float32"), scenes, jvm, tmp_path / "photos", least_different=1)
