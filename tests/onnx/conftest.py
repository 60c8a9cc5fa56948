"""Models that the tests of the ONNX target share: a conversion takes seconds, so that each is made once."""

from __future__ import annotations

import onnx_parts
import pytest

pytest.importorskip("onnxscript", reason="the ONNX exporter is not installed")


@pytest.fixture(scope="session")
def lstm() -> onnx_parts.Parts:
    return onnx_parts.make_parts("lstm")


@pytest.fixture(scope="session")
def gru() -> onnx_parts.Parts:
    return onnx_parts.make_parts("gru")


@pytest.fixture(params=["lstm", "gru"])
def parts(request: pytest.FixtureRequest) -> onnx_parts.Parts:
    made: onnx_parts.Parts = request.getfixturevalue(request.param)
    return made
