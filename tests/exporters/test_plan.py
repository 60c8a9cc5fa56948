"""The plan: each matrix in the form that its zeros and its use ask for, and why."""

from __future__ import annotations

import numpy as np
import pytest
from sparse_matrix import sparse_matrix

from capprune_exporters.plan import (
    AS_FAST,
    candidates,
    in_blocks,
    plan_as_given,
    plan_by_measurement,
    plan_by_size,
)
from capprune_runtime.errors import UsageError

MATRICES = {
    "embedding": sparse_matrix(300, 64, 0.97),
    "scattered": sparse_matrix(256, 128, 0.97),
    "blocks": sparse_matrix(192, 128, 0.95, block=16),
    "denser": sparse_matrix(160, 128, 0.7),
    "tiny": sparse_matrix(8, 16, 0.5),
}


@pytest.mark.parametrize(
    ("weights", "forms"),
    [
        (
            "float32",
            ["densify_float32", "csr_float32", "csr_float32", "densify_float32", "dense_float32"],
        ),
        ("int8", ["densify_int8", "csr_float32", "block_1x16_int8", "dense_int8", "dense_float32"]),
        (
            "codebook4",
            ["densify_float32", "csr_float32", "csr_float32", "densify_float32", "dense_float32"],
        ),
    ],
)
def test_fixed_rule_goes_by_zeros_blocks_and_use(weights: str, forms: list[str]) -> None:
    plan = plan_by_size(MATRICES, ("embedding",), weights)
    assert [line.form for line in plan.lines] == forms
    assert all(line.reason for line in plan.lines)
    assert plan.quantised == {name: "float32" if name == "tiny" else weights for name in MATRICES}
    assert [line.kept for line in plan.lines] == [np.count_nonzero(matrix) for matrix in MATRICES.values()]


def test_measured_plan_takes_a_form_that_is_about_the_fastest() -> None:
    plan = plan_by_measurement(MATRICES, ("embedding",), "int8")
    for line in plan.lines:
        if line.tensor in ("embedding", "tiny"):
            assert not line.measured_us
        else:
            assert set(line.measured_us) == set(candidates(MATRICES[line.tensor], "int8"))
            fastest = min(line.measured_us.values())
            assert line.measured_us[line.form] <= AS_FAST * fastest
            assert f"{line.measured_us[line.form]:.0f} µs" in line.reason


def test_reason_rounds_the_times_that_the_plan_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = candidates(MATRICES["scattered"], "int8")
    times = dict.fromkeys(forms, 9.496)  # 9 as it is, and 10 after two digits
    monkeypatch.setattr("capprune_exporters.plan.measure", lambda *_: (times, dict.fromkeys(forms, 1)))
    plan = plan_by_measurement({"scattered": MATRICES["scattered"]}, (), "int8")
    (line,) = plan.lines
    assert line.measured_us == dict.fromkeys(forms, 9.5)
    assert line.reason.startswith("10 µs; ")


def test_given_forms_replace_those_of_the_rule() -> None:
    plan = plan_as_given(MATRICES, ("embedding",), "int8", {"scattered": "dense_int8", "embedding": "dense_float32"})
    assert plan.forms["scattered"] == "dense_int8" and plan.forms["embedding"] == "dense_float32"
    assert plan.forms["blocks"] == "block_1x16_int8"


@pytest.mark.parametrize(
    "given",
    [{"nothing": "dense_int8"}, {"scattered": "csr_int8"}, {"embedding": "block_1x16_int8"}, {"tiny": "dense_int8"}],
)
def test_a_plan_with_unknown_tensors_or_forms_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        plan_as_given(MATRICES, ("embedding",), "int8", given)


def test_falling_back_keeps_a_form_without_quantisation() -> None:
    plan = plan_by_size(MATRICES, ("embedding",), "int8")
    for name, form in (("embedding", "densify_float32"), ("blocks", "csr_float32"), ("denser", "densify_float32")):
        back = plan.with_float(name, "why")
        assert (back.forms[name], back.quantised[name]) == (form, "float32")
        assert all(back.forms[other] == plan.forms[other] for other in MATRICES if other != name)


def test_masks_of_whole_blocks_are_told_from_scattered_ones() -> None:
    assert in_blocks(MATRICES["blocks"])
    assert not in_blocks(MATRICES["scattered"])
    assert not in_blocks(np.zeros((16, 64), np.float32))
    assert not in_blocks(np.ones((16, 60), np.float32))
