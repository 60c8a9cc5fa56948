"""Ten thousand mutated files: each is refused by the right error, or computed as the reference computes it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import fuzz
import pytest
from fuzz import Report, run_cases

CASES = int(os.environ.get("CAPPRUNE_FUZZ_CASES", "10000"))
FEW = min(CASES, 1250)  # without --slow
SEED = int(os.environ.get("CAPPRUNE_FUZZ_SEED", "1"))


def check(report: Report, cases: int) -> None:
    assert report.cases == cases
    assert not report.failures, "\n".join(map(str, report.failures[:20]))
    # A fuzz that hardly ever gets past the verifier, or hardly ever knows what is right, would find nothing.
    assert report.share("compared") > 0.9
    assert report.share("not compared") < 0.04
    assert report.accepted > 0.15 * cases


@pytest.mark.parametrize("cases", [FEW, pytest.param(CASES, marks=pytest.mark.slow)])
def test_mutated_files_are_refused_or_computed_rightly(world_folder: Path, cases: int) -> None:
    check(run_cases(world_folder, SEED, 0, cases), cases)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["tensorflow", "tflite-runtime"])
def test_mutated_files_are_computed_rightly_by_other_interpreters(runtime: str, world_folder: Path) -> None:
    if importlib.util.find_spec(runtime.replace("-", "_")) is None:
        pytest.skip(f"{runtime} is not installed")
    check(run_cases(world_folder, SEED + 1, 0, CASES, runtime), CASES)


def test_a_crash_and_a_hang_are_counted_and_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a child that crashes at 3, hangs at 5, and leaves at 7."""
    child = (
        "import json, os, signal, sys, time\n"
        "for n in range(int(sys.argv[3]), int(sys.argv[4])):\n"
        "    if n == 3: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if n == 5: time.sleep(60)\n"
        "    if n == 7: sys.exit(9)\n"
        "    print(json.dumps([n, 'x', 'compared']), flush=True)\n"
    )
    (tmp_path / "fuzz_child.py").write_text(child)
    monkeypatch.setattr(fuzz, "CHILD", tmp_path / "fuzz_child.py")
    monkeypatch.setattr(fuzz, "CASE_SECONDS", 1.0)
    monkeypatch.setattr(fuzz, "START_SECONDS", 5.0)
    report = run_cases(tmp_path, 1, 0, 9)
    assert report.counts["compared"] == 6 and report.cases == 9
    assert [(failure.number, failure.outcome) for failure in report.failures] == [
        (3, "signal 11"), (5, "hang: over 1 seconds"), (7, "wrong: the process ended with 9"),
    ]  # fmt: skip
