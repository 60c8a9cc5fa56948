from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny3(data_folder: Path, when_absent: pytest.FixtureRequest) -> Path:
    """The published checkpoint: a 97.5 % sparse Up-Down LSTM with the region features of two photos."""
    folder = data_folder / "tiny3"
    if not (folder / "expected.json").is_file():
        when_absent("data", f"there is no tiny3 under CAPPRUNE_DATA ({data_folder})")  # type: ignore[operator]
    return folder
