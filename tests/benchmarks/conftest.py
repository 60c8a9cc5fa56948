"""The scripts of benchmarks/, which is no package, and a small run for one of them to measure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from small_run import Measured, make_measured

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return make_measured(tmp_path_factory.mktemp("measured"))
