"""A small bundle, packed, made once for all tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from packed_bundle import Packed, make_packed_bundle, quantise_every_matrix, tflite_edit, tiny_bundle


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tiny_bundle.TinyModels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # litert-torch and its parts warn of each other's future
        return tiny_bundle.make_models("lstm", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def make_packed(
    models: tiny_bundle.TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[tflite_edit.Edit], Packed]:
    return lambda edit: make_packed_bundle(tmp_path_factory.mktemp("capz") / "bundle", models, edit)


@pytest.fixture(scope="session")
def packed(make_packed: Callable[[tflite_edit.Edit], Packed]) -> Packed:
    return make_packed(quantise_every_matrix("int8"))
