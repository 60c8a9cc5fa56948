"""Thousands of damaged files: refused, or run to the result that onnx's own reference gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_parts
import pytest
from onnx_parts import Parts

from capprune_exporters.onnx.weights import make_gapped

FUZZER = Path(__file__).with_name("fuzz_onnx.py")
CASES, SLOW_CASES = 3000, 10 * int(os.environ.get("CAPPRUNE_FUZZ_CASES", "10000"))


@pytest.fixture
def folder(lstm: Parts, tmp_path: Path) -> Path:
    """What the fuzzer starts from: one decoder in every form."""
    step = lstm.step.converted
    (tmp_path / "dense.onnx").write_bytes(step)
    for weights in ("float32", "int8", "codebook4"):
        data = make_gapped(step, weights=weights, dynamic=True, names=lstm.weights).data
        (tmp_path / f"{weights}.onnx").write_bytes(data)
    np.savez(tmp_path / "inputs.npz", **lstm.step.arrays)  # type: ignore[arg-type]
    (tmp_path / "signature.json").write_text(json.dumps(onnx_parts.step_signature("lstm")))
    return tmp_path


def fuzz(folder: Path, count: int) -> dict[str, int]:
    command = [sys.executable, str(FUZZER), "7", str(count), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert sum(outcomes.values()) == count
    assert outcomes.keys() <= {"refused", "same", "refused by the interpreter", "not compared"}, outcomes
    assert outcomes["same"] > count * 0.05  # the verifier is not simply refusing everything
    assert outcomes["refused"] > count * 0.3
    assert outcomes.get("not compared", 0) + outcomes.get("refused by the interpreter", 0) < count * 0.01, outcomes
    return outcomes


def test_damaged_files_are_refused_or_give_what_the_reference_gives(folder: Path) -> None:
    fuzz(folder, CASES)


@pytest.mark.slow
def test_very_many_damaged_files_are_refused_or_give_what_the_reference_gives(folder: Path) -> None:
    fuzz(folder, SLOW_CASES)
