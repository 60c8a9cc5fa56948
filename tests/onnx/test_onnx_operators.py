"""One ONNX operator at a time: shapes are those of onnxruntime, numbers those of NumPy, and what does not fit is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import BadModelFile
from capprune_runtime.onnx.check import check_onnx
from onnx import TensorProto, helper, numpy_helper

CLOSE = 2e-6  # of float32 and of the approximations of erf and tanh
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One operator: inputs of random numbers by shape, stored ones by value, and the shape of its output."""

    operator: str
    inputs: tuple[tuple[int, ...] | NDArray[Any], ...]
    output: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


def number(value: float) -> Floats:
    return np.array(value, np.float32)


def row(*numbers: float) -> Floats:
    return np.array(numbers, np.float32)


SCALE, BIAS = row(0.5, 1, 2, -1), row(0, 1, -1, 0.5)
POOL = {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]}
NORMAL = {"axis": -1, "epsilon": 1e-5, "stash_type": 1}
CASES = [
    Case("Div", ((1, 2, 4), (1, 2, 1)), (1, 2, 4)),
    Case("Div", ((1, 4), row(1, 2, 3, 4)), (1, 4)),
    Case("Sqrt", ((1, 5),), (1, 5)),
    Case("Log", ((1, 5),), (1, 5)),
    Case("Gelu", ((1, 5),), (1, 5), {"approximate": "none"}),
    Case("Gelu", ((1, 5),), (1, 5), {"approximate": "tanh"}),
    Case("Gelu", ((1, 5),), (1, 5)),
    Case("Clip", ((1, 5), number(0.25)), (1, 5)),
    Case("MaxPool", ((1, 2, 7, 7),), (1, 2, 4, 3), POOL),
    Case("MaxPool", ((1, 2, 4, 4),), (1, 2, 3, 3), {"kernel_shape": [2, 2]}),
    Case("LayerNormalization", ((1, 4), SCALE, BIAS), (1, 4), NORMAL),
    Case("LayerNormalization", ((1, 4), SCALE, BIAS), (1, 4), NORMAL | {"epsilon": 1e-12}),
    Case("LayerNormalization", ((1, 3, 4), SCALE, BIAS), (1, 3, 4), NORMAL),
]


def one_operator(case: Case, dtype: int = TensorProto.FLOAT) -> bytes:
    names = [f"x{n}" for n in range(len(case.inputs))]
    given = list(zip(names, case.inputs, strict=True))
    graph = helper.make_graph(
        [helper.make_node(case.operator, names, ["y"], **case.attributes)],
        "main",
        [helper.make_tensor_value_info(name, dtype, one) for name, one in given if isinstance(one, tuple)],
        [helper.make_tensor_value_info("y", dtype, case.output)],
        [numpy_helper.from_array(one, name) for name, one in given if not isinstance(one, tuple)],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def check(case: Case, dtype: int = TensorProto.FLOAT) -> bytes:
    data = one_operator(case, dtype)
    kind = str(helper.tensor_dtype_to_np_dtype(dtype))
    inputs = {f"x{n}": (one, kind) for n, one in enumerate(case.inputs) if isinstance(one, tuple)}
    check_onnx(data, "f", inputs, {"y": (case.output, kind)}, rows=False)
    return data


def expected(case: Case, inputs: list[NDArray[Any]]) -> NDArray[Any]:
    """The result in float64."""
    x, *more = (one.astype(np.float64) for one in inputs)
    if case.operator == "Div":
        return x / more[0]
    if case.operator == "Gelu" and case.attributes.get("approximate") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if case.operator == "Gelu":
        return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    if case.operator == "Clip":
        return np.maximum(x, more[0])
    if case.operator == "LayerNormalization":
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + case.attributes["epsilon"]) * more[0] + more[1]
    if case.operator == "MaxPool":
        return _max_pooled(x, case)
    return {"Sqrt": np.sqrt, "Log": np.log}[case.operator](x)  # type: ignore[no-any-return]


def _max_pooled(x: NDArray[Any], case: Case) -> NDArray[Any]:
    (height, width), (down, right) = case.attributes["kernel_shape"], case.attributes.get("strides", (1, 1))
    top, left, bottom, far = case.attributes.get("pads", (0, 0, 0, 0))
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, far)), constant_values=-np.inf)
    found = np.empty(case.output)
    for row, column in np.ndindex(*case.output[2:]):
        window = padded[:, :, row * down : row * down + height, column * right : column * right + width]
        found[:, :, row, column] = window.max((2, 3))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operator} {case.output} {case.attributes}")
def test_shape_and_numbers_are_those_of_onnxruntime(case: Case) -> None:
    generator = np.random.default_rng(0)
    given = [
        generator.uniform(0.1, 3, one).astype(np.float32) if isinstance(one, tuple) else one for one in case.inputs
    ]
    computed = {f"x{n}": given[n] for n, one in enumerate(case.inputs) if isinstance(one, tuple)}
    found = open_model(check(case), "f").run(computed)["y"]
    assert found.shape == case.output
    assert np.abs(found - expected(case, given)).max() <= CLOSE * max(1, np.abs(found).max())


EDGES = [
    ("Sqrt", [0, 1e-40, 3e38, -1], [0, 1e-20, np.sqrt(3e38), np.nan]),
    ("Log", [1, 1e-40, 3e38, 0, -1], [0, np.log(1e-40), np.log(3e38), -np.inf, np.nan]),
    ("Gelu", [0, -10, 10, 3e38, -3e38], [0, 0, 10, 3e38, 0]),
]


@pytest.mark.parametrize(("operator", "given", "wanted"), EDGES, ids=[edge[0] for edge in EDGES])
def test_numbers_at_the_edges_are_those_of_ieee(operator: str, given: list[float], wanted: list[float]) -> None:
    data = check(Case(operator, ((1, len(given)),), (1, len(given))))
    found = open_model(data, "f").run({"x0": np.array([given], np.float32)})["y"][0]
    np.testing.assert_allclose(found, np.array(wanted, np.float32), rtol=2e-5, atol=1e-6)


MISFITS = [
    (Case("Div", ((1, 2), (1, 3)), (1, 3)), "do not fit"),
    (Case("Clip", ((1, 5), row(0.25)), (1, 5)), "do not fit"),
    (Case("Clip", ((1, 5), number(2), number(1)), (1, 5)), "do not fit"),
    (Case("Clip", ((1, 5), ()), (1, 5)), "must be stored"),
    (Case("Clip", ((1, 5),), (1, 5)), "wrong number of inputs"),
    (Case("Gelu", ((1, 5),), (1, 5), {"approximate": "sigmoid"}), "not allowed"),
    (Case("Gelu", ((1, 5),), (1, 5), {"alpha": 1.0}), "not known"),
    (Case("MaxPool", ((1, 2, 7),), (1, 2, 4), {"kernel_shape": [2, 2]}), "do not fit"),
    (Case("MaxPool", ((1, 2, 4, 4),), (1, 2, 4, 4)), "do not fit"),
    (Case("MaxPool", ((1, 2, 4, 4),), (1, 2, 4, 4), {"kernel_shape": [5, 5]}), "do not fit"),
    (Case("MaxPool", ((1, 2, 4, 4),), (1, 2, 3, 3), {"kernel_shape": [2, 2], "pads": [2, 2, 0, 0]}), "do not fit"),
    (Case("MaxPool", ((1, 2, 4, 4),), (1, 2, 2, 2), {"kernel_shape": [3, 3], "ceil_mode": 1}), "not allowed"),
    (Case("MaxPool", ((1, 2, 5, 5),), (1, 2, 1, 1), {"kernel_shape": [2, 2], "dilations": [4, 4]}), "not allowed"),
    (Case("MaxPool", ((1, 2, 4, 4),), (1, 2, 3, 3), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}), "not allowed"),
    (Case("Sqrt", ((1, 5),), (1, 4)), "another shape or type"),
    (Case("LayerNormalization", ((1, 4), SCALE[:3], BIAS), (1, 4), NORMAL), "do not fit"),
    (Case("LayerNormalization", ((1, 4), SCALE, BIAS[None]), (1, 4), NORMAL), "do not fit"),
    (Case("LayerNormalization", ((), SCALE, BIAS), (), NORMAL), "do not fit"),
    (Case("LayerNormalization", ((1, 4), (4,), BIAS), (1, 4), NORMAL), "must be stored"),
    (Case("LayerNormalization", ((1, 4), SCALE), (1, 4), NORMAL), "wrong number of inputs"),
    (Case("LayerNormalization", ((4, 4), SCALE, BIAS), (4, 4), NORMAL | {"axis": 0}), "not allowed"),
    (Case("LayerNormalization", ((1, 4), SCALE, BIAS), (1, 4), NORMAL | {"epsilon": 1e-14}), "not allowed"),
    (Case("LayerNormalization", ((1, 4), SCALE, BIAS), (1, 4), NORMAL | {"epsilon": 0.0}), "not allowed"),
    (Case("LayerNormalization", ((1, 4), SCALE, BIAS), (1, 4), NORMAL | {"epsilon": float("nan")}), "not allowed"),
    (Case("LayerNormalization", ((1, 4), SCALE, BIAS), (1, 4), NORMAL | {"stash_type": 11}), "not allowed"),
    *((Case(name, ((1, 5),), (1, 5)), "not allowed") for name in ("Exp", "Reciprocal", "Elu", "Erf")),
    (Case("InstanceNormalization", ((1, 4, 3), SCALE, BIAS), (1, 4, 3)), "not allowed"),
    (Case("Pow", ((1, 5), number(2)), (1, 5)), "not allowed"),
    (Case("Greater", ((1, 5), number(2)), (1, 5)), "not allowed"),
]


@pytest.mark.parametrize(("case", "rule"), MISFITS, ids=lambda value: getattr(value, "operator", value))
def test_what_does_not_fit_is_refused(case: Case, rule: str) -> None:
    with pytest.raises(BadModelFile, match=rule):
        check(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operator} {case.output} {case.attributes}")
def test_whole_numbers_are_refused(case: Case) -> None:
    with pytest.raises(BadModelFile, match="do not fit"):
        check(case, TensorProto.INT32)
