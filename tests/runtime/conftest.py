"""Parts that the tests of the runtime share: real exported models, and a sound bundle around them."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import tiny_bundle


@pytest.fixture(scope="session")
def lstm_models(tmp_path_factory: pytest.TempPathFactory) -> tiny_bundle.TinyModels:
    return _models("lstm", tmp_path_factory)


@pytest.fixture(scope="session")
def gru_models(tmp_path_factory: pytest.TempPathFactory) -> tiny_bundle.TinyModels:
    return _models("gru", tmp_path_factory)


@pytest.fixture
def bundle_folder(tmp_path: Path, lstm_models: tiny_bundle.TinyModels) -> Path:
    """A sound bundle that the test may damage."""
    return tiny_bundle.write_bundle(tmp_path / "bundle", lstm_models)


def _models(cell: str, factory: pytest.TempPathFactory) -> tiny_bundle.TinyModels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # litert-torch and its parts warn of each other's future
        return tiny_bundle.make_models(cell, factory.mktemp(cell))
