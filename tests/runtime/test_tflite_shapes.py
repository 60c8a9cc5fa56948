"""The shapes that the verifier works out are those that the interpreter gives, one operator at a time."""

from __future__ import annotations

import numpy as np
import pytest
from one_operator import CASES, MISFITS, WRONG_TYPES, Case, one_operator_file

from capprune_runtime import check_tflite
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BadModelFile


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operator} {case.outputs}")
def test_inferred_shape_is_that_of_the_interpreter(case: Case) -> None:
    data = one_operator_file(case)
    model = check_tflite(data, "f", "run")
    generator = np.random.default_rng(0)
    inputs = {
        name: generator.normal(size=model.tensors[index].shape).astype(model.tensors[index].dtype)
        for name, index in model.signatures["run"].inputs.items()
    }
    inputs = {name: np.abs(values) for name, values in inputs.items()}
    found = open_model(data, "run").run(inputs)
    assert [found[f"t{index}"].shape for index in model.outputs] == list(case.outputs)
    assert {str(array.dtype) for array in found.values()} == {case.dtype}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operator} {case.outputs}")
def test_another_declared_shape_or_type_is_refused(case: Case) -> None:
    larger = tuple((*shape[:-1], shape[-1] + 1) for shape in case.outputs)
    with pytest.raises(BadModelFile, match="another shape or type than declared"):
        check_tflite(one_operator_file(case, outputs=larger), "f", "run")
    if case.operator != "CAST":
        with pytest.raises(BadModelFile, match="another shape or type than declared"):
            check_tflite(one_operator_file(case, dtype="int64"), "f", "run")


@pytest.mark.parametrize("case", MISFITS, ids=lambda case: f"{case.operator} {case.inputs}")
def test_operands_that_do_not_go_together_are_refused(case: Case) -> None:
    with pytest.raises(BadModelFile, match="do not fit"):
        check_tflite(one_operator_file(case), "f", "run")


@pytest.mark.parametrize("case", WRONG_TYPES, ids=lambda case: f"{case.operator} {case.dtype}")
def test_types_that_no_exporter_writes_are_refused(case: Case) -> None:
    with pytest.raises(BadModelFile, match="no exporter writes this form"):
        check_tflite(one_operator_file(case), "f", "run")
