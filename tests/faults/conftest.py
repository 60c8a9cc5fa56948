from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "training"))


@pytest.fixture(params=[0, pytest.param(12, marks=pytest.mark.slow)])
def slow_kills(request: pytest.FixtureRequest) -> int:
    """How often a slow test kills; 0 in the default suite, where one kill must do."""
    return int(request.param)
