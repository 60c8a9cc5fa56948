"""The sparse rewrite: every form is what the constants say, holds the weights, and runs everywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_model import (
    ODD_MATRICES,
    SIGNATURE,
    WEIGHT,
    checked,
    decoded,
    matrix_case,
    matrix_model,
    odd_matrix,
    packed,
    random_matrix,
    stored_bytes,
)
from numpy.typing import NDArray
from real_parts import RUNTIMES, Arrays, Case, Part, largest_error, run
from torch import nn

from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.dense import make_dense
from capprune_exporters.tflite.sparse import (
    BYTES_ALIGNMENT,
    DENSIFY_PAYS,
    SMALLEST,
    SPARSE_FULLY_CONNECTED_VERSION,
    SPARSE_KERNEL_PAYS,
    make_sparse,
    pack,
)
from capprune_runtime.errors import ExportError
from capprune_runtime.tflite.file import Tensor, TfliteModel

FLOAT_ERROR = 1e-5  # relative to the largest value; the same float32 products, added in another order
SPARSE_MODELS = ("lstm step", "gru step", "encode", "encode, read sparse", "shared weights")


@pytest.mark.parametrize("name", [*SPARSE_MODELS, *ODD_MATRICES])
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.slow_but_for("ai-edge-litert", "tflite-runtime")
def test_sparse_model_computes_what_was_trained_in_every_interpreter(
    runtime: str, name: str, cases: dict[str, Case], computed: Callable[[str], dict[str, Arrays]]
) -> None:
    assert largest_error(computed(runtime)[name], cases[name].expected) <= FLOAT_ERROR


@pytest.mark.parametrize("name", [*SPARSE_MODELS, *ODD_MATRICES])
def test_verifier_accepts_what_is_written(name: str, cases: dict[str, Case]) -> None:
    checked(cases[name].data, cases[name].signature)


def test_every_matrix_of_an_lstm_step_gets_the_form_that_pays(lstm_step: Part) -> None:
    assert _forms(lstm_step) == {
        ("FULLY_CONNECTED", (300, 64), "csr_float32"),  # output
        ("FULLY_CONNECTED", (256, 192), "csr_float32"),  # rnn
        ("FULLY_CONNECTED", (64, 64), "csr_float32"),  # query
        ("MUL", (1, 1, 64), "dense_float32"),  # score: too small to gain
        ("EMBEDDING_LOOKUP", (300, 64), "densify_float32"),
    }


def test_every_matrix_of_a_gru_step_gets_the_form_that_pays(gru_step: Part) -> None:
    assert _forms(gru_step) == {
        ("FULLY_CONNECTED", (300, 64), "csr_float32"),
        ("FULLY_CONNECTED", (128, 192), "csr_float32"),  # rnn: reset and update
        ("FULLY_CONNECTED", (64, 192), "csr_float32"),  # candidate
        ("FULLY_CONNECTED", (64, 64), "csr_float32"),
        ("MUL", (1, 1, 64), "dense_float32"),
        ("EMBEDDING_LOOKUP", (300, 64), "densify_float32"),
    }


def test_projections_of_an_encoder_are_stored_sparse_and_run_dense(encode: Part) -> None:
    densified = [tensor for tensor in encode.sparse.tensors if tensor.form == "densify_float32"]
    assert {tensor.shape for tensor in densified} == {(64, 96)}
    assert len(densified) == 3  # keys, values, initial state
    model = checked(encode.sparse.data, "encode")
    assert [operator.name for operator in model.operators[:3]] == ["DENSIFY"] * 3


class Filters(nn.Module):
    """A pointwise, a usual and a depthwise convolution, each with 90 % zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.usual = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 96, 3)
        self.depthwise, self.narrow = nn.Conv2d(96, 96, 3, groups=96), nn.Conv2d(96, 64, 1)
        with torch.no_grad():
            for layer in (self.wide, self.usual, self.depthwise, self.narrow):
                layer.weight.mul_(torch.rand_like(layer.weight) > 0.9)

    def forward(self, photo: torch.Tensor) -> dict[str, torch.Tensor]:
        found = torch.relu(self.usual(torch.relu(self.wide(photo.permute(0, 3, 1, 2)))))
        return {"y": self.narrow(torch.relu(self.depthwise(found)))}


def test_filters_are_stored_sparse_by_name_unless_told_otherwise() -> None:
    torch.manual_seed(15)
    module, photo = Filters().eval(), torch.rand(1, 9, 9, 3)
    converted = convert(module, "encode", {"photo": photo})
    values = module.usual.weight.detach().permute(0, 2, 3, 1).contiguous().numpy()
    rounded = values * np.float32(1 + 1e-6)  # as a folded batch norm may
    made = make_sparse(converted, one_row=False, names={"usual": rounded})
    assert {tensor.shape: tensor.form for tensor in made.tensors} == {
        (64, 1, 1, 3): "dense_float32",  # too small to matter
        (96, 3, 3, 64): "densify_float32",
        (1, 3, 3, 96): "dense_float32",
        (64, 1, 1, 96): "densify_float32",
    }
    model = checked(made.data, "encode")
    (tensor,) = (tensor for tensor in model.tensors if tensor.name == "usual")
    assert [level.compressed for level in tensor.sparsity.dimensions] == [False, False, False, True]  # type: ignore[union-attr]
    assert (model.stored_values(tensor) == values[values != 0]).all()
    with torch.inference_mode():
        expected = {name: value.numpy() for name, value in module(photo).items()}
    assert (
        largest_error(run(Case(made.data, "encode", {"photo": photo.numpy()}, {}), "ai-edge-litert"), expected) < 1e-5
    )
    assert checked(make_dense(made.data), "encode")
    dense = make_sparse(converted, one_row=False, filters=False)
    assert {tensor.form for tensor in dense.tensors} == {"dense_float32"}


@pytest.mark.parametrize(("name", "matrices"), [("lstm_step", 4), ("gru_step", 5), ("encode", 3)])
def test_kept_weights_in_the_file_are_those_of_the_masks(
    name: str, matrices: int, request: pytest.FixtureRequest
) -> None:
    part: Part = request.getfixturevalue(name)
    masks = {
        (weight + 0.0).detach().numpy().tobytes(): int((weight != 0).sum())  # the sum turns -0 into 0
        for key, weight in part.module.named_parameters()
        if key.endswith("weight")
    }
    model = checked(part.sparse.data, "encode" if name == "encode" else "step")
    pairs = zip(part.sparse.tensors, _weights(model), strict=True)
    sparse = [(told, tensor) for told, tensor in pairs if told.form != "dense_float32"]
    assert len(sparse) == matrices
    for told, tensor in sparse:
        assert told.kept == model.stored_values(tensor).size == masks[decoded(model, tensor).tobytes()]


@pytest.mark.parametrize("name", ["lstm_step", "encode"])
def test_sizes_told_are_the_bytes_in_the_file(name: str, request: pytest.FixtureRequest) -> None:
    part: Part = request.getfixturevalue(name)
    model = checked(part.sparse.data, "encode" if name == "encode" else "step")
    in_file = [stored_bytes(model, tensor) for tensor in _weights(model)]
    assert sorted(tensor.size_bytes for tensor in part.sparse.tensors) == sorted(in_file)
    assert part.sparse.weight_bytes == sum(in_file)
    assert part.sparse.kept == sum(tensor.kept for tensor in part.sparse.tensors)
    assert len(part.sparse.data) < len(part.converted)


def test_dense_bytes_do_not_stay_in_the_file_beside_the_sparse_ones() -> None:
    weight = random_matrix((256, 256), 0.975)
    sparse = make_sparse(packed(weight), one_row=True)
    graph_alone = len(packed(weight)) - weight.nbytes
    assert len(sparse.data) - sparse.weight_bytes < graph_alone + 512  # the tables of one sparse tensor


@pytest.mark.parametrize(
    ("sparsity", "one_row", "form"),
    [
        (0.0, True, "dense_float32"),
        (DENSIFY_PAYS - 0.01, True, "dense_float32"),
        (DENSIFY_PAYS, True, "densify_float32"),
        (SPARSE_KERNEL_PAYS - 0.01, True, "densify_float32"),
        (SPARSE_KERNEL_PAYS, True, "csr_float32"),
        (SPARSE_KERNEL_PAYS, False, "densify_float32"),
        (1.0, True, "csr_float32"),
    ],
)
def test_form_follows_the_sparsity(sparsity: float, one_row: bool, form: str) -> None:
    weight = random_matrix((100, 100), sparsity)
    data = packed(weight)
    stored = make_sparse(data, one_row=one_row)
    (tensor,) = stored.tensors
    assert tensor.form == form
    assert tensor.sparsity == pytest.approx(sparsity)
    assert largest_error(run(matrix_case(weight, stored.data), "ai-edge-litert"), _expected(weight)) <= FLOAT_ERROR


def test_small_matrix_stays_dense_however_sparse() -> None:
    weight = random_matrix((1, SMALLEST - 1), 0.99)
    (tensor,) = make_sparse(packed(weight), one_row=True).tensors
    assert (tensor.form, tensor.size_bytes) == ("dense_float32", weight.nbytes)


@pytest.mark.parametrize(
    ("columns", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.int32)],
)
def test_indices_are_as_narrow_as_the_columns_allow(columns: int, dtype: type) -> None:
    weight = odd_matrix(f"{columns} columns")
    weight[:, -1] = 1  # the last column decides whether the type reaches
    sparse = make_sparse(packed(weight), one_row=True)
    model = checked(sparse.data)
    sparsity = model.tensors[WEIGHT].sparsity
    assert sparsity is not None and sparsity.dimensions[1].indices.dtype == np.dtype(dtype)
    assert np.array_equal(decoded(model, model.tensors[WEIGHT]), weight)


def test_matrix_without_a_kept_weight_stores_one_zero_that_runtimes_can_read() -> None:
    sparse = make_sparse(packed(np.zeros((64, 128), np.float32)), one_row=True)
    model = checked(sparse.data)
    assert sparse.kept == 0
    assert model.stored_values(model.tensors[WEIGHT]).tolist() == [0.0]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 600),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.97, 0.995, 1.0]),
    empty=st.sampled_from(["nothing", "first rows", "last rows", "first columns"]),
    seed=st.integers(0, 2**32 - 1),
    one_row=st.booleans(),
)
def test_any_matrix_comes_back_from_the_file_and_multiplies_alike(
    rows: int, columns: int, sparsity: float, empty: str, seed: int, one_row: bool
) -> None:
    rows = max(rows, -(-SMALLEST // columns))
    weight = random_matrix((rows, columns), sparsity, seed)
    if empty == "first rows":
        weight[: rows // 2] = 0
    elif empty == "last rows":
        weight[rows // 2 :] = 0
    elif empty == "first columns":
        weight[:, : columns // 2] = 0
    stored = make_sparse(packed(weight), one_row=one_row)
    model = checked(stored.data)
    assert np.array_equal(decoded(model, model.tensors[WEIGHT]), weight)
    assert stored.tensors[0].kept == np.count_nonzero(weight)
    assert stored.tensors[0].size_bytes == stored_bytes(model, model.tensors[WEIGHT])
    case = matrix_case(weight, stored.data, seed)
    scale = np.abs(case.inputs["x"]) @ np.abs(weight.T)  # of the terms, as the sums may cancel
    error = np.abs(run(case, "ai-edge-litert")["y"] - case.expected["y"])
    assert (error <= FLOAT_ERROR * scale.max()).all()


def test_negative_zero_is_a_zero() -> None:
    weight = random_matrix((64, 128), 0.95)
    weight[weight == 0] = -0.0
    (tensor,) = make_sparse(packed(weight), one_row=True).tensors
    assert (tensor.form, tensor.kept) == ("csr_float32", np.count_nonzero(weight))


def test_weight_of_two_operators_is_stored_once(shared: Part) -> None:
    assert {(tensor.operator, tensor.form) for tensor in shared.sparse.tensors} == {
        ("FULLY_CONNECTED", "csr_float32"),
        ("EMBEDDING_LOOKUP+FULLY_CONNECTED", "densify_float32"),
    }
    model = checked(shared.sparse.data, "shared")
    (densify,) = (operator for operator in model.operators if operator.name == "DENSIFY")
    readers = [operator.name for operator in model.operators if densify.outputs[0] in operator.inputs]
    assert sorted(readers) == ["EMBEDDING_LOOKUP", "FULLY_CONNECTED"]


def test_embedding_is_expanded_by_the_first_operator_and_its_users_read_the_expansion(lstm_step: Part) -> None:
    model = checked(lstm_step.sparse.data, "step")
    densify, *others = model.operators
    assert densify.name == "DENSIFY"
    (lookup,) = (operator for operator in others if operator.name == "EMBEDDING_LOOKUP")
    assert lookup.inputs[1] == densify.outputs[0]
    assert not any(densify.inputs[0] in operator.inputs for operator in others)


def test_operators_with_sparse_weights_have_the_version_that_reads_them(lstm_step: Part) -> None:
    model = checked(lstm_step.sparse.data, "step")
    versions = {
        operator.version
        for operator in model.operators
        if operator.name == "FULLY_CONNECTED" and model.tensors[operator.inputs[WEIGHT]].sparsity
    }
    assert versions == {SPARSE_FULLY_CONNECTED_VERSION}


def test_stored_input_of_a_product_is_never_csr_because_the_kernel_knows_only_weights() -> None:
    weight = random_matrix((64, 128), 0.975)
    stored = make_sparse(packed(weight, rows=3, weight_is_the_input=True), one_row=True)
    assert [tensor.form for tensor in stored.tensors] == ["densify_float32"]
    case = matrix_case(weight, stored.data)
    x = np.random.default_rng(1).standard_normal((3, 128)).astype(np.float32)
    found = run(Case(case.data, SIGNATURE, {"x": x}, {}), "ai-edge-litert")
    assert largest_error(found, {"y": weight @ x.T}) <= FLOAT_ERROR


def test_stored_tensor_that_is_an_output_too_is_left_alone() -> None:
    model = matrix_model(random_matrix((64, 128), 0.975))
    model.subgraphs[0].outputs.append(WEIGHT)
    assert make_sparse(pack(model), one_row=True).tensors == ()


def test_same_model_gives_the_same_bytes(lstm_step: Part, encode: Part) -> None:
    assert make_sparse(lstm_step.converted, one_row=True).data == lstm_step.sparse.data
    assert make_sparse(encode.converted, one_row=False).data == encode.sparse.data


def test_metadata_of_the_converter_is_kept(lstm_step: Part) -> None:
    before, after = (_metadata(data) for data in (lstm_step.converted, lstm_step.sparse.data))
    assert before and all(before.values())
    assert after == before


def test_stored_bytes_are_aligned_as_the_schema_demands(lstm_step: Part) -> None:
    model = checked(lstm_step.sparse.data, "step")
    start = np.frombuffer(lstm_step.sparse.data, np.uint8).ctypes.data
    places = [np.frombuffer(buffer, np.uint8).ctypes.data - start for buffer in model.buffers if len(buffer)]
    assert len(places) > 10
    assert {place % BYTES_ALIGNMENT for place in places} == {0}


def test_model_with_two_subgraphs_is_refused() -> None:
    model = matrix_model(random_matrix((64, 128), 0.975))
    model.subgraphs.append(schema.SubGraphT())
    with pytest.raises(ExportError, match="one subgraph") as caught:
        make_sparse(pack(model), one_row=True)
    assert caught.value.found == "2 subgraphs"


def _metadata(data: bytes) -> dict[bytes, bytes]:
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    return {entry.name: bytes(model.buffers[entry.buffer].data) for entry in model.metadata}


def _forms(part: Part) -> set[tuple[str, tuple[int, ...], str]]:
    forms = [(tensor.operator, tensor.shape, tensor.form) for tensor in part.sparse.tensors]
    assert len(set(forms)) == len(forms)
    return set(forms)


def _weights(model: TfliteModel) -> list[Tensor]:
    """Stored float32 tensors of two dimensions or more that an operator uses."""
    used = {index for operator in model.operators for index in operator.inputs}
    return [
        tensor
        for tensor in model.tensors
        if tensor.index in used and tensor.dtype == "float32" and len(tensor.shape) >= 2 and model.is_constant(tensor)
    ]


def _expected(weight: NDArray[np.float32]) -> Arrays:
    return matrix_case(weight, b"").expected
