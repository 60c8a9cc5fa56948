"""Every form a plan can name: it holds the weights, runs rightly everywhere, and is refused where it would not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest
import real_parts
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_model import (
    SIGNATURE,
    WEIGHT,
    checked,
    decoded,
    lookup_model,
    matrix_case,
    matrix_model,
    packed,
    random_blocks,
    random_matrix,
    stored_bytes,
)
from numpy.typing import NDArray
from real_parts import RUNTIMES, Arrays, Case, Part, largest_error, run

from capprune_exporters.quantise import requantised
from capprune_exporters.stored import SparseModel
from capprune_exporters.tflite.forms import COMPUTED_WRONGLY, FORMS, MOST_BLOCKS, encoded
from capprune_exporters.tflite.graph import MODEL_METADATA, VOCABULARY_METADATA, add_metadata, pack
from capprune_exporters.tflite.sparse import make_sparse
from capprune_exporters.weight_forms import Weights
from capprune_runtime.errors import ExportError

Matrix = NDArray[np.float32]

FLOAT_ERROR = 1e-5  # relative to the sum of the terms' sizes
STEP_ERROR = 0.03  # relative to the largest value, of whole steps with int8 products
HYBRID = ("dense_int8", "block_1x16_int8")  # round their input to int8
INPUT_STEPS = 127  # from zero to the largest input; some runtimes take 255 from the smallest to the largest, as near

# Matrices at the edges of the forms.
MATRICES: dict[str, Matrix] = {
    "usual": random_blocks((300, 512), 0.9),
    "unstructured": random_matrix((100, 96), 0.9),
    "empty rows": random_blocks((600, 32), 0.97),
    "all zero": np.zeros((64, 128), np.float32),
    "full": random_matrix((64, 128), 0.0),
    "one row": random_blocks((1, 4096), 0.5),
    "as many blocks in a row as there may be": random_blocks((8, 4096), 0.0) * (np.arange(4096) < 16 * MOST_BLOCKS),
    "more than 255 blocks": random_blocks((40, 512), 0.6),
    "more than 65535 blocks": random_blocks((4200, 256), 0.0),
}
PLANNED = [form for form in FORMS if form != "dense_float32"]
USERS = ("EMBEDDING_LOOKUP", "GATHER")
STEPS = {
    "dense int8": ("dense_int8", "dense_int8"),
    "blocks": ("block_1x16_int8", "densify_int8"),
    "densified": ("densify_int8", "densify_int8"),
    "csr": ("csr_float32", "densify_float32"),
}


def stored(matrix: Matrix, form: str, weights: str = "float32") -> SparseModel:
    return make_sparse(packed(matrix), one_row=True, plan={"weight": form}, weights=weights)


def looked_up(form: str, operator: str) -> Case:
    table = random_matrix((500, 48), 0.9)
    row = 123
    table[row, 7] = 1
    expected = encoded(form, table, "float32").dense() if form != "dense_float32" else table
    made = make_sparse(pack(lookup_model(table, operator)), one_row=True, plan={"weight": form})
    return Case(made.data, SIGNATURE, {"x": np.array([row], np.int32)}, {"y": expected[row : row + 1]})


def planned(part: Part, multiplied: str, looked_up: str, signature: str) -> Case:
    names = {tensor.name: tensor for tensor in part.sparse.tensors if len(tensor.shape) == 2}
    plan = {name: looked_up if "LOOKUP" in tensor.operator else multiplied for name, tensor in names.items()}
    return part.case(make_sparse(part.converted, one_row=True, plan=plan).data, signature)


@pytest.fixture(scope="module")
def form_cases(lstm_step: Part, gru_step: Part, shared: Part) -> dict[str, Case]:
    matrices = {
        f"{form} {name}": matrix_case(encoded(form, matrix, "float32").dense(), stored(matrix, form).data)
        for form in PLANNED
        for name, matrix in MATRICES.items()
    }
    lookups = {f"{form} {user}": looked_up(form, user) for form, user in LOOKUPS}
    steps = {
        f"{cell} {name}": planned(part, *forms, "step")
        for cell, part in (("lstm", lstm_step), ("gru", gru_step))
        for name, forms in STEPS.items()
    }
    tables = {f"shared {form}": planned(shared, form, form, "shared") for form in ("dense_int8", "densify_int8")}
    return {**matrices, **lookups, **steps, **tables}


LOOKUPS = [
    (form, user)
    for form in ("dense_float32", "densify_float32", "densify_int8", "dense_int8")
    for user in USERS
    if (form, user) != ("dense_int8", "GATHER")
]


@pytest.fixture(scope="module")
def form_outputs(
    form_cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Arrays]]:
    @cache
    def outputs(runtime: str) -> dict[str, Arrays]:
        if not real_parts.installed(runtime):
            pytest.skip(f"{runtime} is not installed")
        return real_parts.outputs_of(form_cases, runtime, tmp_path_factory.mktemp(runtime))

    return outputs


Outputs = Callable[[str], Mapping[str, Arrays]]


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("form", PLANNED)
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.slow_but_for("ai-edge-litert", "tflite-runtime")
def test_every_form_computes_what_it_holds_in_every_interpreter(
    runtime: str, form: str, name: str, form_cases: dict[str, Case], form_outputs: Outputs
) -> None:
    case = form_cases[f"{form} {name}"]
    found = form_outputs(runtime)[f"{form} {name}"]["y"]
    weights = encoded(form, MATRICES[name], "float32")
    assert within_rounding(found, weights.matvec(case.inputs["x"][0]), weights.dense(), case.inputs["x"][0], form)


@pytest.mark.parametrize(("form", "user"), LOOKUPS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_looked_up_rows_are_exact_in_every_interpreter(
    runtime: str, form: str, user: str, form_cases: dict[str, Case], form_outputs: Outputs
) -> None:
    case = form_cases[f"{form} {user}"]
    assert case.expected["y"].any()
    assert np.allclose(form_outputs(runtime)[f"{form} {user}"]["y"], case.expected["y"], rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", [f"{cell} {form}" for cell in ("lstm", "gru") for form in STEPS])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_step_stays_near_in_every_interpreter(
    runtime: str, name: str, form_cases: dict[str, Case], form_outputs: Outputs
) -> None:
    error = largest_error(form_outputs(runtime)[name], form_cases[name].expected)
    assert error <= (FLOAT_ERROR if name.endswith("csr") else STEP_ERROR)


@pytest.mark.parametrize("form", ["dense_int8", "densify_int8"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_table_that_is_looked_up_and_multiplied_stays_near(
    runtime: str, form: str, form_cases: dict[str, Case], form_outputs: Outputs
) -> None:
    name = f"shared {form}"
    assert largest_error(form_outputs(runtime)[name], form_cases[name].expected) <= STEP_ERROR


def test_verifier_accepts_every_form(form_cases: dict[str, Case]) -> None:
    for case in form_cases.values():
        checked(case.data, case.signature)


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(PLANNED),
    rows=st.integers(1, 90),
    blocks=st.integers(1, 20),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.97, 1.0]),
    seed=st.integers(0, 2**16),
    weights=st.sampled_from(list(Weights)),
)
def test_any_matrix_comes_back_from_the_file_and_multiplies_alike(
    form: str, rows: int, blocks: int, sparsity: float, seed: int, weights: str
) -> None:
    matrix = random_blocks((rows, 16 * blocks), sparsity, seed)
    made = stored(matrix, form, weights)
    model = checked(made.data)
    (told,), tensor = made.tensors, model.tensors[WEIGHT]
    expected = requantised(matrix, weights if form in ("csr_float32", "densify_float32") else "int8")
    assert np.array_equal(decoded(model, tensor), expected)
    assert (told.form, told.kept, told.name) == (form, np.count_nonzero(expected), "weight")
    assert told.size_bytes == stored_bytes(model, tensor)
    case = matrix_case(expected, made.data, seed)
    found = run(case, "ai-edge-litert")["y"]
    assert within_rounding(found, case.expected["y"], expected, case.inputs["x"][0], form)


@pytest.mark.parametrize(("form", "least"), [("dense_int8", 4.0), ("block_1x16_int8", 15.0), ("densify_int8", 13.0)])
def test_int8_forms_take_few_bytes(form: str, least: float) -> None:
    matrix = random_blocks((512, 512), 0.975)
    assert matrix.nbytes >= least * stored(matrix, form).weight_bytes


def test_row_pointers_and_places_are_as_narrow_as_their_numbers() -> None:
    few, some, many = (MATRICES[name] for name in ("one row", "more than 255 blocks", "more than 65535 blocks"))
    for matrix, dtype in ((few, np.uint8), (some, np.uint16), (many, np.int32)):
        model = checked(stored(matrix, "block_1x16_int8").data)
        sparsity = model.tensors[WEIGHT].sparsity
        assert sparsity is not None
        assert sparsity.dimensions[1].segments.dtype == np.dtype(dtype)
        assert sparsity.dimensions[1].indices.dtype == np.dtype(np.uint8)


@pytest.mark.parametrize("form", COMPUTED_WRONGLY)
def test_form_that_computes_wrongly_is_refused_with_the_reason(form: str) -> None:
    with pytest.raises(ExportError, match="computes wrongly is never written") as caught:
        stored(MATRICES["usual"], form)
    assert caught.value.found == f"{form}: {COMPUTED_WRONGLY[form]}"
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ((8, 4112), "cannot be stored in blocks"),
        ((8, 24), "cannot be stored in blocks"),
        ((8, 4096), "too many blocks"),
    ],
)
def test_matrix_that_blocks_cannot_hold_is_refused(shape: tuple[int, int], what: str) -> None:
    with pytest.raises(ExportError, match=what):
        stored(random_matrix(shape, 0.0), "block_1x16_int8")


@pytest.mark.parametrize("form", ["csr_float32", "block_1x16_int8", "dense_int8", "densify_int8"])
def test_form_that_its_operator_cannot_read_is_refused(form: str) -> None:
    model = packed(random_matrix((64, 128), 0.9), rows=3, weight_is_the_input=True)
    with pytest.raises(ExportError, match="does not fit where the matrix is used") as caught:
        make_sparse(model, one_row=True, plan={"weight": form})
    assert caught.value.found == "input 0 of FULLY_CONNECTED"


@pytest.mark.parametrize("form", ["csr_float32", "block_1x16_int8"])
def test_table_is_never_stored_as_a_product(form: str) -> None:
    with pytest.raises(ExportError, match="does not fit where the matrix is used"):
        make_sparse(pack(lookup_model(MATRICES["usual"], "EMBEDDING_LOOKUP")), one_row=True, plan={"weight": form})


def test_filter_of_four_dimensions_takes_no_form_of_matrices(encode: Part) -> None:
    name = next(tensor.name for tensor in encode.sparse.tensors if len(tensor.shape) == 4)
    with pytest.raises(ExportError, match="is for matrices"):
        make_sparse(encode.converted, one_row=False, plan={name: "densify_int8"})


def test_unknown_form_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ExportError, match="no such form") as caught:
        stored(MATRICES["usual"], "csr_float16")
    assert caught.value.expected == ", ".join(FORMS)


def test_plan_that_names_an_unknown_tensor_is_refused() -> None:
    with pytest.raises(ExportError, match="names a tensor that does not exist") as caught:
        make_sparse(packed(MATRICES["usual"]), one_row=True, plan={"wait": "csr_float32"})
    assert (caught.value.where, caught.value.expected) == ("wait", "weight")


def test_tensors_get_the_names_of_the_parameters_in_every_form(lstm_step: Part) -> None:
    names = matrices_of(lstm_step)
    made = make_sparse(lstm_step.converted, one_row=True, plan={"rnn.weight": "dense_int8"}, names=names)
    told = {tensor.name: tensor for tensor in made.tensors}
    assert told.keys() == {"embedding.weight", "query.weight", "score.weight", "rnn.weight", "output.weight"}
    assert told["rnn.weight"].form == "dense_int8" and told["output.weight"].form == "csr_float32"
    model = checked(made.data, "step")
    in_file = {tensor.name: tensor for tensor in model.tensors if model.is_constant(tensor)}
    for name, matrix in names.items():
        expected = requantised(matrix, "int8" if name == "rnn.weight" else "float32")
        assert np.array_equal(decoded(model, in_file[name]).reshape(matrix.shape), expected)


def test_two_parameters_of_the_same_values_do_not_share_a_name() -> None:
    matrix = MATRICES["usual"]
    made = make_sparse(packed(matrix), one_row=True, names={"first": matrix, "second": matrix})
    assert [tensor.name for tensor in made.tensors] == ["first"]


def test_parameter_of_another_shape_gives_no_name() -> None:
    matrix = MATRICES["usual"]
    made = make_sparse(packed(matrix), one_row=True, names={"turned": matrix.reshape(512, 300)})
    assert [tensor.name for tensor in made.tensors] == ["weight"]


@pytest.mark.parametrize("weights", ["int8", "codebook4"])
def test_quantised_weights_are_exactly_those_of_requantised(lstm_step: Part, weights: str) -> None:
    names = matrices_of(lstm_step)
    chosen = {"output.weight": weights, "embedding.weight": weights}
    made = make_sparse(lstm_step.converted, one_row=True, weights=chosen, names=names)
    model = checked(made.data, "step")
    for name, tensor in ((tensor.name, tensor) for tensor in model.tensors if tensor.name in names):
        expected = requantised(names[name], chosen.get(name, "float32"))
        assert np.array_equal(decoded(model, tensor).reshape(expected.shape), expected)


def test_products_beside_a_sparse_one_keep_their_version() -> None:
    model = matrix_model(MATRICES["unstructured"])
    graph = model.subgraphs[0]
    graph.tensors += matrix_model(random_matrix((100, 100), 0.9, 5)).subgraphs[0].tensors[WEIGHT:]
    graph.tensors[3].name, graph.tensors[4].name = b"second", b"z"
    second = schema.OperatorT()
    second.opcodeIndex, second.inputs, second.outputs = 0, [2, 3, -1], [4]
    second.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    second.builtinOptions = schema.FullyConnectedOptionsT()
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(random_matrix((100, 100), 0.9, 5).tobytes(), np.uint8)
    model.buffers.append(buffer)
    graph.tensors[3].buffer = 2
    graph.operators.append(second)
    graph.outputs = [4]
    model.signatureDefs[0].outputs[0].tensorIndex = 4
    made = make_sparse(pack(model), one_row=True, plan={"weight": "csr_float32", "second": "densify_int8"})
    versions = [op.version for op in checked(made.data).operators if op.name == "FULLY_CONNECTED"]
    assert versions == [8, 1]


def test_metadata_is_added_once_and_read_by_the_verifier(lstm_step: Part) -> None:
    first = add_metadata(lstm_step.sparse.data, b"old\n", b"{}")
    data = add_metadata(first, b"<pad>\n", b'{"preprocessing": {}, "decoding": {}}')
    model = checked(data, "step")
    assert {name: bytes(content) for name, content in model.metadata.items()} == {
        VOCABULARY_METADATA: b"<pad>\n",
        MODEL_METADATA: b'{"preprocessing": {}, "decoding": {}}',
    }
    assert b"old\n" not in data
    case = lstm_step.case(data, "step")
    assert largest_error(run(case, "ai-edge-litert"), case.expected) <= FLOAT_ERROR


def within_rounding(found: Matrix, expected: Matrix, weight: Matrix, x: Matrix, form: str) -> bool:
    """Whether a product differs by no more than its sums, and its input where the kernel rounds that, were rounded."""
    sizes = np.abs(weight.astype(np.float64))
    allowed = FLOAT_ERROR * (sizes @ np.abs(x)) + 1e-30
    if form in HYBRID:
        allowed += 0.51 * np.abs(x).max() / INPUT_STEPS * sizes.sum(1)
    return bool((np.abs(found.ravel() - expected.ravel()) <= allowed).all())


def matrices_of(part: Part) -> dict[str, Matrix]:
    """The matrices of `step` by the names that the decoder gives them."""
    return {
        name.removeprefix("decoder."): value.detach().numpy()
        for name, value in part.module.named_parameters()
        if name.endswith("weight") and not name.startswith(("decoder.initial", "decoder.key", "decoder.value"))
    }
