"""The table of model files: each kind has a verifier of ours, names of its own and a runtime."""

from __future__ import annotations

import pytest

from capprune_runtime.errors import BadModelFile
from capprune_runtime.formats import FORMATS, RUNTIMES, Call, kind_of_name, model_files, model_kind, runtimes_for

CALL = Call("step", {"token": ((1,), "int32")}, {"scores": ((1, 8), "float32")}, rows=True)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("data", [b"", b"\0\0\0\0TFL3", b"\0\0\0\0NOPE" * 20, bytes(1000)])
def test_every_kind_has_a_verifier_that_refuses_what_is_no_model(kind: str, data: bytes) -> None:
    with pytest.raises(BadModelFile, match="a file"):
        FORMATS[kind].verify(data, "a file", CALL)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_has_names_of_its_own_and_a_runtime(kind: str) -> None:
    one = FORMATS[kind]
    assert {kind_of_name(name) for name in one.files} == {kind}
    assert all(name in model_files() for name in one.files) and len(set(model_files())) == 2 * len(FORMATS)
    assert one.identifier is None or model_kind(b"\0\0\0\0" + one.identifier) == kind
    assert runtimes_for(kind)


def test_every_runtime_runs_a_kind_that_is_verified() -> None:
    assert {runtime.kind for runtime in RUNTIMES.values()} == set(FORMATS)
    assert kind_of_name("vocabulary.txt") is None
