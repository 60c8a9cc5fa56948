"""The families with multi-head attention, trained and pruned, generate in each format and in Java the captions of torch."""

from __future__ import annotations

from pathlib import Path

import pytest
from desktop_jvm import DesktopJvm
from family_training import SIZES, TRANSFORMERS, bundle_of, int8_loses_little, same_as_torch, same_in_java, trained

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=TRANSFORMERS)
def run(request: pytest.FixtureRequest, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and pruned run of one family."""
    family = request.param
    return trained(scenes, tmp_path_factory.mktemp(family), f"decoder.family={family}", *SIZES[family])


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_exported_captions_are_those_of_torch_greedy_and_with_a_beam(run: Path, scenes: Path, target: str) -> None:
    same_as_torch(run, scenes, target)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_int8_loses_little(run: Path, scenes: Path, target: str) -> None:
    int8_loses_little(run, scenes, target)


def test_java_generates_the_same_tokens(run: Path, scenes: Path, jvm: DesktopJvm, tmp_path: Path) -> None:
    same_in_java(bundle_of(run, "tflite", "float32"), scenes, jvm, tmp_path)
