"""Models that the tests of the exporter share: a conversion takes seconds, so that each is made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import matrix_model
import pytest
import real_parts
from matrix_model import ODD_MATRICES, odd_matrix
from real_parts import Arrays, Case, Part

from capprune_exporters.tflite.sparse import make_sparse, read_sparse


@pytest.fixture(scope="session")
def lstm_step() -> Part:
    return real_parts.make_step("lstm")


@pytest.fixture(scope="session")
def gru_step() -> Part:
    return real_parts.make_step("gru")


@pytest.fixture(scope="session")
def encode() -> Part:
    return real_parts.make_encode()


@pytest.fixture(scope="session")
def dead_channels() -> Part:
    return real_parts.make_dead_channels()


@pytest.fixture(scope="session")
def shared() -> Part:
    return real_parts.make_shared()


@pytest.fixture(scope="session")
def cases(lstm_step: Part, gru_step: Part, encode: Part, dead_channels: Part, shared: Part) -> dict[str, Case]:
    """Every model that is run in every interpreter."""
    odd = {name: odd_matrix(name) for name in ODD_MATRICES}
    return {
        "lstm step": lstm_step.case(lstm_step.sparse.data, "step"),
        "gru step": gru_step.case(gru_step.sparse.data, "step"),
        "encode": encode.case(encode.sparse.data, "encode"),
        "encode, read sparse": encode.case(read_sparse(encode.sparse.data), "encode"),
        "shared weights": shared.case(shared.sparse.data, "shared"),
        **real_parts.int8_cases(encode, dead_channels),
        **{
            name: matrix_model.matrix_case(weight, make_sparse(matrix_model.packed(weight), one_row=True).data)
            for name, weight in odd.items()
        },
    }


@pytest.fixture(scope="session")
def computed(cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Arrays]]:
    """What an interpreter computes of every case."""

    @cache
    def outputs(runtime: str) -> dict[str, Arrays]:
        if not real_parts.installed(runtime):
            pytest.skip(f"{runtime} is not installed")
        return real_parts.outputs_of(cases, runtime, tmp_path_factory.mktemp(runtime))

    return outputs
