"""Bundles are timed cold and warm, interleaved, a process that fails is named, and the section states what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_run import Measured

import first_caption
import first_caption_bundles as made
from capprune.training.progress import SILENT
from capprune_exporters.pack.capz import pack
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.errors import CapPruneError
from first_caption import PACKAGED, cold_start
from first_caption_bundles import Compared
from first_caption_results import _other, first_caption_section


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.new("RGB", (90, 70), "green").save(path)
    return path


def checked(document: dict[str, Any]) -> dict[str, Any]:
    """Return the rows by name, after checking what holds for each."""
    rows = {row["name"]: row for row in document["rows"]}
    for row in rows.values():
        low, high = (sum(part[key] for part in row["parts_ms"].values()) for key in ("p10", "p90"))
        assert 0 < low <= row["warm_caption_ms"]["estimate"] <= high  # seven rounds of ten lie above or below
        assert all(part["p10"] > 0 for part in row["parts_ms"].values())
        assert 0 < row["cold_seconds"]["p10"] <= row["cold_seconds"]["p50"] <= row["cold_seconds"]["p90"]
        assert row["warm_caption_ms"]["estimate"] / 1000 < row["cold_seconds"]["p50"]
        assert row["caption"] and row["peak_mb"] > 20 and row["steps"] >= 1
        assert (row["faster"] is None) == bool(row["against"] is None or row["reason"])
    return rows


@pytest.mark.slow
def test_a_packed_bundle_is_timed_cold_and_warm_beside_a_baseline(
    measured: Measured, photo: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "small.capz"
    pack(measured.bundle, packed)
    compared = {"packed": Compared(packed, None), "folder": Compared(measured.bundle, "packed")}
    document = first_caption.measure(photo, compared, cold=2, warm=10)
    ours, baseline = checked(document).values()
    assert ours["download_bytes"] == packed.stat().st_size < baseline["download_bytes"]
    assert ours["caption"] == baseline["caption"] and ours["steps"] == baseline["steps"]
    assert (ours["against"], baseline["against"]) == (None, "packed")
    text = first_caption_section({**document, "command": "python x"})
    assert f"{packed.stat().st_size:,}" in text and "encoder | steps | host | total" in text and "python x" in text


@pytest.mark.slow
def test_the_default_export_and_the_blocks_variant_are_timed_beside_their_dense_baselines(
    measured: Measured, photo: Path, tmp_path: Path
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "first_caption.json"
    arguments = [str(photo), "--data", str(measured.data), "--run", str(measured.run)]
    arguments += ["--blocks-run", str(measured.run), "--blocks", str(measured.bundle)]
    arguments += ["--cache", str(cache), "--rounds", "10", "--cold", "1", "--json", "--out", str(out)]
    assert first_caption.main(arguments) == 0
    document = json.loads(out.read_text())
    rows = checked(document)
    names = [PACKAGED, made.DEFAULT, made.FLOAT32, made.INT8, made.BLOCKS, made.BLOCKS_FLOAT32, made.BLOCKS_INT8]
    assert list(rows) == names
    assert (rows[made.FLOAT32]["encoder"], rows[made.FLOAT32]["decoder"]) == ("float32", "float32")
    assert (rows[made.INT8]["encoder"], rows[made.INT8]["decoder"]) == ("static_int8", "int8")
    kept = verify_bundle(measured.bundle).manifest.quantisation
    assert (rows[made.BLOCKS]["encoder"], rows[made.BLOCKS_INT8]["encoder"]) == (kept.encoder, "static_int8")
    against = {name: row["against"] for name, row in rows.items()}
    assert against[made.FLOAT32] == against[made.INT8] == made.DEFAULT and against[made.DEFAULT] is None
    assert against[made.BLOCKS_FLOAT32] == against[made.BLOCKS_INT8] == made.BLOCKS
    (folder,) = cache.iterdir()
    assert rows[made.DEFAULT]["download_bytes"] == (folder / "default.capz").stat().st_size
    dense = verify_bundle(folder / "blocks-int8.capz")
    assert len(dense.decoder) > len(verify_bundle(measured.bundle).decoder)
    assert made.INT8 in first_caption_section(document)
    times = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    made.make_bundles(measured.run, measured.run, measured.bundle, measured.data, cache, SILENT)  # exported earlier
    assert times == {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


def test_the_peak_of_a_process_is_its_own(measured: Measured, photo: Path) -> None:
    held = np.ones(2**27)  # 1 GiB, in the process that starts the other
    assert 20 < cold_start(photo, measured.bundle).peak_mb < held.nbytes / 2**20


def test_a_process_that_fails_is_named(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(CapPruneError, match="nothing-here"):
        cold_start(photo, tmp_path / "nothing-here")


def test_a_run_that_is_not_there_ends_with_its_exit_code(photo: Path, tmp_path: Path) -> None:
    assert first_caption.main([str(photo), "--data", str(tmp_path), "--run", str(tmp_path / "absent")]) in (2, 4)


def test_section_says_how_to_measure_what_is_not_there() -> None:
    assert "benchmarks/first_caption.py" in first_caption_section(None)


def test_a_baseline_that_is_faster_makes_its_bundle_slower_in_the_section() -> None:
    row = {"against": "x", "faster": {"low": 0.4, "estimate": 0.5, "high": 0.8}, "reason": ""}
    assert _other(row) == "2.00x slower [1.25, 2.50]"
