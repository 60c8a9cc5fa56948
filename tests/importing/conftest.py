from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny3(data_folder: Path, when_absent: Callable[[str, str], None]) -> Path:
    """The published checkpoint: a 97.5 % sparse Up-Down LSTM with the region features of two photos."""
    folder = data_folder / "tiny3"
    if not (folder / "expected.json").is_file():
        when_absent("data", f"there is no tiny3/expected.json under CAPPRUNE_DATA ({data_folder})")
    return folder
