"""Bundles are timed cold and warm in turns, a process that fails is named, and the section tells what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import Measured

from capprune_exporters.pack.capz import pack
from capprune_runtime.errors import CapPruneError
from first_caption import cold_start, measure
from first_caption_results import first_caption_section


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.new("RGB", (90, 70), "green").save(path)
    return path


def test_a_packed_bundle_is_timed_beside_dense_exports(measured: Measured, photo: Path, tmp_path: Path) -> None:
    packed = tmp_path / "small.capz"
    pack(measured.bundle, packed)
    document = measure(photo, packed, measured.run, tmp_path / "exports", cold=2, warm=2)
    ours, tflite, onnx = document["rows"]
    assert ours["download_bytes"] == packed.stat().st_size < tflite["download_bytes"]
    assert [one["runtime"] for one in (ours, tflite, onnx)] == ["ai-edge-litert", "ai-edge-litert", "onnxruntime"]
    assert ours["caption"] == tflite["caption"] == onnx["caption"] != ""
    for one in document["rows"]:
        assert 0 < one["cold_seconds"]["p10"] <= one["cold_seconds"]["p50"] <= one["cold_seconds"]["p90"]
        assert one["warm_caption_ms"]["estimate"] / 1000 < one["cold_seconds"]["p50"] and one["peak_mb"] > 20
    text = first_caption_section(document)
    assert f"{packed.stat().st_size:,}" in text and "dense float32, onnx" in text


def test_the_peak_of_a_process_is_its_own(measured: Measured, photo: Path) -> None:
    held = np.ones(2**27)  # 1 GiB, in the process that starts the other
    assert 20 < cold_start(photo, measured.bundle).peak_mb < held.nbytes / 2**20


def test_a_process_that_fails_is_named(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(CapPruneError, match="nothing-here"):
        cold_start(photo, tmp_path / "nothing-here")


def test_section_says_how_to_measure_what_is_not_there() -> None:
    assert "benchmarks/first_caption.py" in first_caption_section(None)
