"""The shipped decoders in LiteRT's newer API: equal outputs, or a refusal. An upgrade that computes nonsense fails here.

Pinned: ai-edge-litert 2.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from capprune.ready import READY
from capprune_runtime.bundle.verify import Bundle, verify_bundle

litert = pytest.importorskip("ai_edge_litert.compiled_model", reason="ai-edge-litert without CompiledModel")

BLOCKS = Path(__file__).parents[2] / "ready_model" / "flickr8k-coco-blocks.capz"
Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module", params=[READY, BLOCKS], ids=["rows", "blocks"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return verify_bundle(request.param)


def step_inputs(bundle: Bundle, token: int) -> Arrays:
    random = np.random.default_rng(token)
    return {
        name: np.array([token], np.int32) if dtype == "int32" else random.standard_normal(shape).astype(np.float32)
        for name, (shape, dtype) in bundle.manifest.interface.step_inputs().items()
    }


def by_interpreter(bundle: Bundle, inputs: Arrays) -> Arrays:
    from ai_edge_litert.interpreter import Interpreter

    found: Arrays = Interpreter(model_content=bundle.decoder, num_threads=1).get_signature_runner("step")(**inputs)
    return found


def by_compiled_model(bundle: Bundle, inputs: Arrays, *, ynnpack: bool = False) -> Arrays:
    cpu = litert.CpuOptions(num_threads=1, enable_ynnpack=ynnpack)
    options = litert.Options(hardware_accelerators=litert.HardwareAccelerator.CPU, cpu_options=cpu)
    model = litert.CompiledModel.from_buffer(bundle.decoder, options=options)
    given = {name: model.create_input_buffer_by_name("step", name) for name in inputs}
    for name, array in inputs.items():
        given[name].write(array)
    expected = bundle.manifest.interface.step_outputs()
    made = {name: model.create_output_buffer_by_name("step", name) for name in expected}
    model.run_by_name("step", given, made)
    return {name: made[name].read(int(np.prod(shape)), np.float32) for name, (shape, _) in expected.items()}


@pytest.mark.parametrize("token", [1, 700])
def test_compiled_model_gives_the_outputs_of_the_interpreter(bundle: Bundle, token: int) -> None:
    inputs = step_inputs(bundle, token)
    expected, found = by_interpreter(bundle, inputs), by_compiled_model(bundle, inputs)
    assert expected.keys() == found.keys() and np.ptp(expected["scores"]) > 1
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array.ravel(), rtol=1e-5, atol=1e-5, err_msg=name)


def test_compiled_model_with_ynnpack_refuses_sparse_decoders(bundle: Bundle) -> None:
    with pytest.raises(RuntimeError):
        by_compiled_model(bundle, step_inputs(bundle, 1), ynnpack=True)


def test_tensor_details_describe_sparse_tensors(bundle: Bundle) -> None:
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_content=bundle.decoder).get_tensor_details()
    sparse = [one for one in details if one["sparsity_parameters"]]
    assert sparse and all({"traversal_order", "dim_metadata"} <= one["sparsity_parameters"].keys() for one in sparse)
