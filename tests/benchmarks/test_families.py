from __future__ import annotations

import pytest

import families


def test_a_family_is_smaller_in_every_sparse_form_and_its_state_is_the_interfaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(families, "ROUNDS", 1)
    monkeypatch.setattr(families, "STEPS", 2)
    (row,) = families.measure(["show_tell"])["rows"]
    assert row["prunable"] == 3000 * 256 + 1280 * 1024 + (256 + 512) * 2048 + 512 * 3000
    assert (row["held_bytes"], row["state_bytes"]) == (0, 2 * 512 * 4)
    assert 10 * row["sparse_float32"] < row["dense_float32"]
    assert row["onnx_int8"] < row["sparse_int8"] < row["sparse_float32"]
    assert row["step_us"].keys() == {"dense_float32", "sparse_float32", "sparse_int8", "onnx_int8"}
    assert all(p10 <= p50 <= p90 for p50, p10, p90 in row["step_us"].values())
