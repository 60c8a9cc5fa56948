"""Cold loads: every load is a process of its own, in which everything is read, verified and run."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from capprune_runtime.archive import archive_bytes
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.errors import BundleError, UsageError
from capprune_runtime.measure import cold
from capprune_runtime.measure.bench import bench_bundles, bench_document
from capprune_runtime.measure.results import parse_measurements

LINUX = Path("/proc/self/status").exists()


def test_a_cold_load_has_times_and_memory_of_its_own_process(bundle_folder: Path) -> None:
    held = np.ones(1 << 27)  # 1 GiB, in the process that starts the others
    (found,) = cold.cold_loads([bundle_folder], 3, beam=1, runtime="auto", threads=[1])
    assert found is not None and (found.loads, found.packed) == (3, False)
    assert found.process_us and found.load_us and found.first_caption_us
    assert found.process_us > found.load_us + found.first_caption_us > 1000
    if LINUX:
        assert found.peak_rss_bytes and found.retained_rss_bytes
        assert 10_000_000 < found.retained_rss_bytes <= found.peak_rss_bytes < held.nbytes


def test_loads_are_interleaved_and_medians_of_each_bundle(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times_us, order = iter([10.0, 900.0, 30.0, 100.0, 20.0, 500.0]), []

    def one(place: Path, bundle: object, settings: dict[str, object]) -> dict[str, object]:
        order.append(settings["threads"])
        known = dict.fromkeys(("process_us", "load_us", "first_caption_us"), next(times_us))
        return {**known, "peak_rss_bytes": 5, "retained_rss_bytes": None}

    monkeypatch.setattr(cold, "_one", one)
    first, second = cold.cold_loads([bundle_folder] * 2, 3, beam=None, runtime="auto", threads=[1, 2])
    assert order == [1, 2, 1, 2, 1, 2]
    assert first is not None and second is not None and (first.load_us, second.load_us) == (20.0, 500.0)
    assert (first.peak_rss_bytes, first.retained_rss_bytes) == (5, None)  # what is not measured is not made up


def test_a_bundle_that_is_not_on_disk_is_written_for_its_process(bundle_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle_folder, tmp_path / "copy")
    bundle = verify_bundle(copy)
    shutil.rmtree(copy)
    (run,) = bench_bundles([bundle], rounds=1, warm_up=0, cold_loads=1)
    assert run.cold is not None and run.cold.loads == 1 and not copy.exists()
    assert parse_measurements(json.dumps(bench_document([run])), "here") == (run,)


def test_a_bundle_that_has_changed_on_disk_is_refused(bundle_folder: Path) -> None:
    bundle = verify_bundle(bundle_folder)
    other = dataclasses.replace(bundle, files={**bundle.files, "manifest.json": b"{}"})
    with pytest.raises(BundleError, match="changed on disk"):
        cold.cold_loads([other], 1, beam=1, runtime="auto", threads=[1])


def test_a_process_reports_what_is_wrong_with_its_bundle(bundle_folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(bundle_folder, tmp_path / "broken")
    (broken / "vocabulary.txt").write_text("a\nb\n")
    with pytest.raises(BundleError, match="vocabulary"):
        cold.cold_loads([broken], 1, beam=1, runtime="auto", threads=[1])


def test_no_process_starts_without_a_number(bundle_folder: Path) -> None:
    (run,) = bench_bundles([bundle_folder], rounds=1, warm_up=0)
    assert run.cold is None
    with pytest.raises(UsageError, match="nothing to time"):
        bench_bundles([bundle_folder], rounds=1, cold_loads=-1)


def test_the_archive_starts_processes_of_itself(bundle_folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "capprune_runtime.pyz"
    archive.write_bytes(archive_bytes())
    arguments = ["bench", bundle_folder, "--rounds", "1", "--cold-loads", "1", "--json"]
    done = subprocess.run([sys.executable, archive, *arguments], capture_output=True, text=True, env={}, check=True)
    (run,) = parse_measurements(done.stdout, "the archive")
    assert run.cold is not None and run.cold.load_us
