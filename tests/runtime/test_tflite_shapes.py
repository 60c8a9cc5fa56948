"""The shapes that the verifier works out are those that the interpreter gives, one operator at a time."""

from __future__ import annotations

import numpy as np
import pytest
from one_operator import CASES, CONV, VALID, Case, ints, one_operator_file, weights

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


MISFITS = [
    Case("ADD", ((2, 3), (2, 4)), ((2, 3),)),
    Case("RESHAPE", ((2, 3), ints(-1, -1)), ((6,),)),
    Case("RESHAPE", ((2, 3), ints(0, 6)), ((6,),)),
    Case("RESHAPE", ((2, 3), ints(-2, -3)), ((6,),)),
    Case("TRANSPOSE", ((2, 3), ints(0, 0)), ((2, 2),)),
    Case("TRANSPOSE", ((2, 3), ints(0, 2)), ((2, 3),)),
    Case("TRANSPOSE", ((2, 3), ints(0)), ((2,),)),
    Case("EXPAND_DIMS", ((2, 3), ints(4)), ((2, 3, 1),)),
    Case("MEAN", ((2, 3), ints(2)), ((2,),)),
    Case("SLICE", ((4, 4), ints(0, -1), ints(1, 1)), ((1, 1),)),
    Case("SLICE", ((4, 4), ints(0, 3), ints(1, 2)), ((1, 2),)),
    Case("SLICE", ((4, 4), ints(0, 0), ints(1, -2)), ((1, 1),)),
    Case("STRIDED_SLICE", ((4,), ints(0), ints(4), ints(0)), ((4,),)),
    Case("STRIDED_SLICE", ((4,), ints(3), ints(0), ints(-1)), ((3,),)),
    Case("STRIDED_SLICE", ((4,), ints(4), ints(9), ints(1)), ((1,),)),
    Case("STRIDED_SLICE", ((4, 2), ints(4, 0), ints(5, 2), ints(1, 1)), ((2,),), {"shrinkAxisMask": 1}),
    Case("PAD", ((2, 3), np.array([[0, -1], [0, 0]], np.int32)), ((1, 3),)),
    Case("PAD", ((2, 3), np.array([[0, 1 << 30], [0, 0]], np.int32)), ((2, 3),)),
    Case("PAD", ((2, 3), np.array([[0, 0]], np.int32)), ((2, 3),)),
    Case("CONCATENATION", ((2, 3), (3, 3)), ((2, 6),), {"axis": 1}),
    Case("CONCATENATION", ((2, 3), (2,)), ((2, 4),), {"axis": 1}),
    Case("PACK", ((2, 3), (2, 4)), ((2, 2, 3),), {"valuesCount": 2}),
    Case("PACK", ((2, 3), (2, 3)), ((2, 2, 3),), {"valuesCount": 3}),
    Case("UNPACK", ((2, 3),), ((3,), (3,), (3,)), {"num": 3, "axis": 0}),
    Case("SPLIT", (ints(1), (2, 5)), ((2, 2), (2, 2)), {"numSplits": 2}),
    Case("GATHER", ((4, 5), ints(0)), ((4, 1),), {"axis": 2}),
    Case("BROADCAST_TO", ((2, 3), ints(1 << 30, 3)), ((2, 3),)),
    Case("BROADCAST_TO", ((2, 3), ints(3)), ((3,),)),
    Case("BATCH_MATMUL", ((2, 3), (4, 5)), ((2, 5),)),
    Case("FULLY_CONNECTED", ((2, 4), weights(5, 3), weights(5)), ((2, 5),)),
    Case("FULLY_CONNECTED", ((2, 4), weights(5, 4), weights(4)), ((2, 5),)),
    Case("CONV_2D", ((1, 7, 9, 4), weights(5, 3, 2, 3), weights(5)), ((1, 7, 5, 5),), CONV),
    Case("CONV_2D", ((1, 2, 9, 3), weights(5, 3, 2, 3), weights(5)), ((1, 1, 4, 5),), {**CONV, "padding": VALID}),
    Case("DEPTHWISE_CONV_2D", ((1, 8, 8, 3), weights(1, 3, 3, 6), weights(6)), ((1, 8, 8, 6),),
         {"strideW": 1, "strideH": 1, "depthMultiplier": 1}),
    Case("EMBEDDING_LOOKUP", ((2,), weights(5, 4)), ((2, 4),)),
]  # fmt: skip


@pytest.mark.parametrize("case", MISFITS, ids=lambda case: f"{case.operator} {case.inputs}")
def test_operands_that_do_not_go_together_are_refused(case: Case) -> None:
    with pytest.raises(BadModelFile, match="do not fit"):
        check_tflite(one_operator_file(case), "f", "run")
