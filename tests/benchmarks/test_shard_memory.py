"""The memory of training from shards depends on the photos that are shuffled together, not on the data set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "shard_memory.py"
LARGEST_GROWTH = 0.05  # for eight times as many photos
MOST_MB = 2000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_photos() -> None:
    command = [sys.executable, SCRIPT, "--photos", "250", "2000", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [run["photos"] for run in found["runs"]] == [250, 2000]
    assert found["growth"] < LARGEST_GROWTH and all(run["peak_mb"] < MOST_MB for run in found["runs"])
