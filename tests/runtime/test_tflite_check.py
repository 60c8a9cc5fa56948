"""Hostile model files: each breaks one rule, and each is refused before any interpreter exists.

The files are made from a real one by the schema's own object API, so everything but the damage is sound.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_edit as edit
import tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from capprune_runtime import check_tflite
from capprune_runtime.errors import BadModelFile
from capprune_runtime.interpreter import open_model

schema = edit.schema
Edit = Callable[[Any], None]


def graph(model: Any) -> Any:
    return model.subgraphs[0]


def column_level(model: Any) -> Any:
    return edit.scores_weight(model).sparsity.dimMetadata[1]


def pointers(change: Callable[[np.ndarray], np.ndarray]) -> Edit:  # type: ignore[type-arg]
    def apply(model: Any) -> None:
        level = column_level(model)
        level.arraySegments.values = change(np.array(level.arraySegments.values))

    return apply


def columns(change: Callable[[np.ndarray], np.ndarray]) -> Edit:  # type: ignore[type-arg]
    def apply(model: Any) -> None:
        level = column_level(model)
        level.arrayIndices.values = change(np.array(level.arrayIndices.values))

    return apply


def put(array: Any, place: int, value: int) -> Any:
    array[place] = value
    return array


def weight(**fields: object) -> Edit:
    return lambda model: vars(edit.scores_weight(model)).update(fields)


def sparsity(**fields: object) -> Edit:
    return lambda model: vars(edit.scores_weight(model).sparsity).update(fields)


def operator(code: int, **fields: object) -> Edit:
    return lambda model: vars(edit.first_operator(model, code)).update(fields)


def options(code: int, **fields: object) -> Edit:
    return lambda model: vars(edit.first_operator(model, code).builtinOptions).update(fields)


def first_tensor(**fields: object) -> Edit:
    return lambda model: vars(graph(model).tensors[0]).update(fields)


def stored(model: Any, code: int, position: int) -> Any:
    """The buffer behind an operand."""
    return model.buffers[graph(model).tensors[edit.first_operator(model, code).inputs[position]].buffer]


def operand(code: int, position: int, values: list[int]) -> Edit:
    def apply(model: Any) -> None:
        stored(model, code, position).data = np.frombuffer(np.array(values, np.int32).tobytes(), np.uint8)

    return apply


def scales(values: list[float], zero_points: list[int], axis: int = 0) -> Edit:
    return lambda model: edit.set_scales(edit.scores_weight(model), values, zero_points, axis)


def float_value(value: float) -> Edit:
    def apply(model: Any) -> None:
        tensor = edit.scores_weight(model)
        dense = edit.dense_values(model, tensor).copy()
        dense[1, 5] = value  # a row that thinning keeps
        edit.store(model, tensor, dense)

    return apply


def int8_value(value: int) -> Edit:
    def apply(model: Any) -> None:
        buffer = model.buffers[edit.scores_weight(model).buffer]
        buffer.data = put(np.array(buffer.data, np.uint8), 9, value % 256)

    return apply


def cut_values(model: Any) -> None:
    buffer = model.buffers[edit.scores_weight(model).buffer]
    buffer.data = np.array(buffer.data, np.uint8)[: len(buffer.data) // 2]


def no_values(model: Any) -> None:
    edit.store_sparse(model, edit.scores_weight(model), np.zeros((24, 32), np.float32))


def later_dimension(model: Any) -> None:
    edit.scores_weight(model).sparsity.dimMetadata[0].denseSize = 23


def csr_int8(model: Any) -> None:
    edit.make_int8(model, block=1)


def blocks_per_channel(model: Any) -> None:
    edit.make_int8(model, block=16, per_channel=True)


def dense_per_channel(model: Any) -> None:
    edit.make_int8(model, per_channel=True)


def embedding_per_channel(model: Any) -> None:
    table = graph(model).tensors[edit.first_operator(model, 7).inputs[1]]
    dense = edit.dense_values(model, table)
    rows = np.abs(dense).max(axis=1) / 127
    table.type = 9
    edit.set_scales(table, rows.tolist(), [0] * len(rows))
    edit.store(model, table, np.round(dense / rows[:, np.newaxis]).astype(np.int8))


def blocks_of_8(model: Any) -> None:
    tensor = edit.scores_weight(model)
    edit.store_sparse(model, tensor, edit.thinned(edit.dense_values(model, tensor), 8), 8)


def sparse_bias(model: Any) -> None:
    """A sparse tensor where ADD, not FULLY_CONNECTED, reads it."""
    add = edit.first_operator(model, 0)
    add.inputs = [edit.scores_operator(model).inputs[1], add.inputs[1]]


def old_version(model: Any) -> None:
    edit.set_version(model, edit.scores_operator(model), 5)


def second_subgraph(model: Any) -> None:
    model.subgraphs.append(graph(model))


def second_signature(model: Any) -> None:
    other = schema.SignatureDefT()
    other.signatureKey, other.inputs, other.outputs = b"other", [], []
    model.signatureDefs.append(other)


def same_signature_twice(model: Any) -> None:
    model.signatureDefs.append(model.signatureDefs[0])


def signature_entry(**fields: object) -> Edit:
    return lambda model: vars(model.signatureDefs[0].outputs[0]).update(fields)


def signature_of_inner_tensor(model: Any) -> None:
    model.signatureDefs[0].outputs[0].tensorIndex = edit.first_operator(model, 0).outputs[0]


def named_twice(model: Any) -> None:
    outputs = model.signatureDefs[0].outputs
    outputs[0].name = outputs[1].name


def custom_operator(model: Any) -> None:
    model.operatorCodes[0].customCode = b"Evil"


def operator_code(code: int) -> Edit:
    def apply(model: Any) -> None:
        model.operatorCodes[0].builtinCode = code
        model.operatorCodes[0].deprecatedBuiltinCode = min(code, 127)

    return apply


def operator_order(model: Any) -> None:
    graph(model).operators.reverse()


def write_twice(model: Any) -> None:
    operators = graph(model).operators
    operators[1].outputs = operators[0].outputs


def write_constant(model: Any) -> None:
    edit.first_operator(model, 0).outputs = [edit.scores_operator(model).inputs[1]]


def computed_shape_operand(model: Any) -> None:
    slices = edit.first_operator(model, 65)
    slices.inputs = [slices.inputs[0], 0, slices.inputs[2]]


def stored_input(model: Any) -> None:
    graph(model).tensors[0].buffer = graph(model).tensors[edit.first_operator(model, 65).inputs[1]].buffer
    graph(model).tensors[0].shape = [2]


def buffer_field(**fields: object) -> Edit:
    return lambda model: vars(model.buffers[edit.scores_weight(model).buffer]).update(fields)


def first_buffer_used(model: Any) -> None:
    model.buffers[0].data = np.zeros(4, np.uint8)


def metadata(name: bytes, buffer: int = 0) -> Edit:
    def apply(model: Any) -> None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, buffer
        model.metadata = [*(model.metadata or []), entry]

    return apply


def details(model: Any) -> None:
    tensor = edit.scores_weight(model)
    tensor.quantization.detailsType, tensor.quantization.details = 1, schema.CustomQuantizationT()
    tensor.quantization.details.custom = [1, 2, 3]


def nothing(model: Any) -> None:
    """The file as it is."""


CSR, BLOCKS, FLOAT_BLOCKS, INT8 = edit.make_csr, edit.make_int8_blocks, edit.make_float_blocks, edit.make_int8
DENSIFY = edit.make_densified_embedding

# (name, edits of a sound file, what the message says)
HOSTILE: list[tuple[str, list[Edit], str]] = [
    # the file
    ("version", [lambda m: setattr(m, "version", 4)], "schema has another version"),
    ("no subgraph", [lambda m: setattr(m, "subgraphs", [])], "exactly one subgraph"),
    ("two subgraphs", [second_subgraph], "exactly one subgraph"),
    ("no operators", [lambda m: setattr(graph(m), "operators", [])], "computes nothing"),
    ("external buffer", [first_tensor(externalBuffer=1)], "external buffers are not allowed"),
    ("data behind the file", [buffer_field(offset=64, size=64)], "behind the flatbuffer"),
    ("first buffer", [first_buffer_used], "first must be empty"),
    ("metadata that orders operators", [metadata(b"model_control_dependencies")], "metadata: this name"),
    ("metadata buffer", [metadata(b"min_runtime_version", 9999)], "metadata: there is no such buffer"),
    # tensors
    ("tensor type", [first_tensor(type=5)], "type is not allowed"),
    ("tensor buffer", [first_tensor(buffer=9999)], "no such buffer"),
    ("variable", [first_tensor(isVariable=True)], "variables, variants"),
    ("rank", [weight(shape=[1, 1, 1, 1, 24, 32])], "too many dimensions"),
    ("zero size", [first_tensor(shape=[0])], "impossible shape"),
    ("negative size", [first_tensor(shape=[-1])], "impossible shape"),
    ("shape product overflows 32 bits", [weight(shape=[65536, 65536])], "too large"),
    ("shape product overflows 64 bits", [weight(shape=[1 << 24] * 4)], "too large"),
    ("shape that is not fixed", [first_tensor(shapeSignature=[-1])], "shape is not fixed"),
    ("truncated values", [cut_values], "do not fill the shape"),
    ("shape larger than the values", [weight(shape=[25, 32])], "do not fill the shape"),
    ("weight that is NaN", [float_value(np.nan)], "not a finite number"),
    ("weight that is infinite", [float_value(-np.inf)], "not a finite number"),
    ("weight that is infinite, sparse", [float_value(np.inf), CSR], "not a finite number"),
    # quantisation
    ("scale NaN", [INT8, scales([np.nan], [0])], "scale is not a positive number"),
    ("scale infinite", [INT8, scales([np.inf], [0])], "scale is not a positive number"),
    ("scale zero", [INT8, scales([0.0], [0])], "scale is not a positive number"),
    ("scale negative", [INT8, scales([-1.0], [0])], "scale is not a positive number"),
    ("scale subnormal", [INT8, scales([1e-40], [0])], "scale is not a positive number"),
    ("no scale", [INT8, weight(quantization=None)], "must have a scale"),
    ("scales without zero points", [INT8, scales([1.0], [])], "as many zero points"),
    ("more zero points", [INT8, scales([1.0], [0, 0])], "as many zero points"),
    ("number of scales", [INT8, scales([1.0] * 23, [0] * 23)], "do not fit the shape"),
    ("axis of scales", [INT8, scales([1.0] * 24, [0] * 24, axis=2)], "do not fit the shape"),
    ("negative axis", [INT8, scales([1.0] * 24, [0] * 24, axis=-2)], "do not fit the shape"),
    ("zero point", [INT8, scales([1.0], [128])], "zero point is out of range"),
    ("zero point of a weight", [INT8, scales([1.0], [1])], "zero points of 0"),
    ("scales of float32", [scales([1.0], [0])], "cannot be quantised"),
    ("custom quantisation", [INT8, details], "only scales and zero points"),
    ("-128", [INT8, int8_value(-128)], "must not hold -128"),
    ("scale a channel", [dense_per_channel], "FULLY_CONNECTED with a scale a row"),
    ("scale a word", [embedding_per_channel], "EMBEDDING_LOOKUP with a scale a row"),
    # sparse tensors
    ("first pointer", [CSR, pointers(lambda p: put(p, 0, 1))], "first row pointer"),
    ("falling pointer", [CSR, pointers(lambda p: put(p, 5, p[4] - 1))], "row pointer decreases"),
    ("negative pointer", [CSR, pointers(lambda p: put(p, 1, -1))], "row pointer decreases"),
    ("last pointer over the end", [CSR, pointers(lambda p: put(p, -1, p[-1] + 1000))], "last row pointer"),
    ("last pointer before the end", [CSR, pointers(lambda p: put(p, -1, p[-2]))], "last row pointer"),
    ("too few pointers", [CSR, pointers(lambda p: p[:-1])], "number of row pointers"),
    ("too many pointers", [CSR, pointers(lambda p: np.append(p, p[-1]))], "number of row pointers"),
    ("no pointers", [CSR, lambda m: vars(column_level(m)).update(arraySegmentsType=0, arraySegments=None)], "pointers"),
    ("column over the end", [CSR, columns(lambda c: put(c, 3, 32))], "column index is out of range"),
    ("column far over the end", [CSR, columns(lambda c: put(c, 3, 65535))], "column index is out of range"),
    ("column twice", [CSR, columns(lambda c: put(c, 4, c[3]))], "columns of a row must rise"),
    ("columns unsorted", [CSR, columns(lambda c: put(put(c, 3, 9), 4, 8))], "columns of a row must rise"),
    ("too few columns", [CSR, columns(lambda c: c[:-1])], "last row pointer"),
    ("truncated sparse values", [CSR, cut_values], "values are not as many"),
    ("no kept value", [no_values], "nothing is kept"),
    ("dense level", [CSR, later_dimension], "size of level 0"),
    ("traversal order", [CSR, sparsity(traversalOrder=[1, 0])], "traversal order"),
    ("traversal order twice", [CSR, sparsity(traversalOrder=[0, 0])], "traversal order"),
    ("traversal order missing", [CSR, sparsity(traversalOrder=None)], "traversal order"),
    ("levels missing", [CSR, sparsity(dimMetadata=[])], "levels do not fit"),
    ("both levels compressed", [CSR, lambda m: setattr(edit.scores_weight(m).sparsity.dimMetadata[0], "format", 1)],
     "only that, must be compressed"),
    ("unknown level", [CSR, lambda m: setattr(column_level(m), "format", 2)], "unknown form"),
    ("unknown index type", [CSR, lambda m: setattr(column_level(m), "arrayIndicesType", 4)], "unknown type of indices"),
    ("block map of CSR", [CSR, sparsity(blockMap=[1])], "levels do not fit"),
    ("block map", [BLOCKS, sparsity(blockMap=[0])], "blocks must lie along"),
    ("block column over the end", [BLOCKS, columns(lambda c: put(c, 1, 2))], "column index is out of range"),
    ("float block column over the end", [FLOAT_BLOCKS, columns(lambda c: put(c, 1, 8))], "column index is out of"),
    ("truncated block values", [BLOCKS, cut_values], "values are not as many"),
    ("blocks of 8", [blocks_of_8], "no stock runtime has a right kernel"),
    ("int8 CSR", [csr_int8], "stock runtimes compute wrongly"),
    ("int8 blocks, scale a channel", [blocks_per_channel], "stock runtimes compute wrongly"),
    ("int8 blocks, -128", [BLOCKS, int8_value(-128)], "must not hold -128"),
    ("sparse tensor read by ADD", [CSR, sparse_bias], "cannot read a sparse tensor"),
    ("sparse weight of an old version", [CSR, old_version], "read the sparse weight as a dense one"),
    ("sparse embedding without DENSIFY", [DENSIFY, lambda m: setattr(
        edit.first_operator(m, 7), "inputs", [0, edit.first_operator(m, 124).inputs[0]])], "cannot read a sparse"),
    # operators
    ("custom operator", [custom_operator], "custom operators"),
    ("operator CUSTOM", [operator_code(32)], "this one is not allowed"),
    ("operator CALL_ONCE", [operator_code(129)], "this one is not allowed"),
    ("operator WHILE", [operator_code(119)], "this one is not allowed"),
    ("operator code out of range", [operator(0, opcodeIndex=999)], "no such code"),
    ("operator version", [lambda m: setattr(m.operatorCodes[0], "version", 0)], "impossible version"),
    ("custom options", [operator(0, customOptions=[1, 2, 3])], "custom options"),
    ("large custom options", [operator(0, largeCustomOptionsOffset=8, largeCustomOptionsSize=8)], "custom options"),
    ("intermediates", [operator(0, intermediates=[1])], "intermediates"),
    ("mutating inputs", [operator(0, mutatingVariableInputs=[True, False])], "variable inputs"),
    ("options of another operator", [operator(9, builtinOptionsType=9, builtinOptions=schema.SoftmaxOptionsT())],
     "options do not fit"),
    ("options missing", [operator(9, builtinOptionsType=0, builtinOptions=None)], "options do not fit"),
    ("shuffled weights", [options(9, weightsFormat=1)], "weights_format is out of range"),
    ("activation", [options(0, fusedActivationFunction=9)], "activation is out of range"),
    ("softmax", [options(25, beta=np.nan)], "beta is out of range"),
    ("input over the end", [operator(0, inputs=[0, 999])], "no such input tensor"),
    ("input left out", [operator(0, inputs=[-1, 3])], "no such input tensor"),
    ("input -2", [operator(9, inputs=[1, -2, -1])], "no such input tensor"),
    ("too few inputs", [operator(0, inputs=[3])], "wrong number of inputs"),
    ("too many inputs", [operator(0, inputs=[3, 3, 3])], "wrong number of inputs"),
    ("output over the end", [operator(0, outputs=[999])], "no such output tensor"),
    ("output left out", [operator(0, outputs=[-1])], "no such output tensor"),
    ("no output", [operator(0, outputs=[])], "wrong number of outputs"),
    ("order of operators", [operator_order], "never computed"),
    ("two writers", [write_twice], "writes what is there already"),
    ("writes a weight", [write_constant], "writes what is there already"),
    ("shape operand that is computed", [computed_shape_operand], "decides a shape"),
    ("slice before the start", [operand(65, 1, [0, -4])], "inputs do not fit"),
    ("slice over the end", [operand(65, 1, [0, 60])], "inputs do not fit"),
    ("slice of nothing", [operand(65, 2, [1, 0])], "inputs do not fit"),
    ("slice of another size", [operand(65, 2, [1, 8])], "another shape or type than declared"),
    ("concatenation axis", [options(2, axis=3)], "inputs do not fit"),
    ("reshape to more", [operand(22, 1, [1, 5])], "inputs do not fit"),
    ("reshape to nothing", [operand(22, 1, [1, 0])], "inputs do not fit"),
    ("sum over an axis too many", [operand(74, 1, [7])], "inputs do not fit"),
    ("declared type of an output", [lambda m: setattr(
        graph(m).tensors[edit.first_operator(m, 28).outputs[0]], "type", 2)], "another shape or type than declared"),
    ("declared shape of an output", [lambda m: setattr(
        graph(m).tensors[edit.first_operator(m, 28).outputs[0]], "shape", [1, 4, 1024])], "another shape or type"),
    # the subgraph's ends and the signature
    ("input tensor out of range", [lambda m: setattr(graph(m), "inputs", [0, 1, 2, 3, 999])], "no such input tensor"),
    ("input twice", [lambda m: setattr(graph(m), "inputs", [0, 1, 2, 3, 3])], "stored in the file or stands twice"),
    ("input that is stored", [stored_input], "stored in the file or stands twice"),
    ("output tensor out of range", [lambda m: setattr(graph(m), "outputs", [-1])], "no such output tensor"),
    ("input missing", [lambda m: setattr(graph(m), "inputs", [0, 1, 2, 3])], "never computed"),
    ("no signature", [lambda m: setattr(m, "signatureDefs", [])], "exactly one"),
    ("another signature", [lambda m: setattr(m.signatureDefs[0], "signatureKey", b"encode")], "exactly one"),
    ("a second signature", [second_signature], "exactly one"),
    ("a signature twice", [same_signature_twice], "two signatures have one name"),
    ("signature of another subgraph", [lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 1)], "first subgraph"),
    ("signature tensor out of range", [signature_entry(tensorIndex=999)], "not those of the subgraph"),
    ("signature names an inner tensor", [signature_of_inner_tensor], "not those of the subgraph"),
    ("signature name twice", [named_twice], "no name of its own"),
    ("signature name missing", [signature_entry(name=None)], "no name of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "rule"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_file_is_refused_by_its_rule(edits: list[Edit], rule: str, lstm_models: tiny_bundle.TinyModels) -> None:
    data = edit.edited(lstm_models.step_tflite, *edits)
    with pytest.raises(BadModelFile, match=rule) as caught:
        check_tflite(data, "decoder.tflite", "step")
    assert str(caught.value.where).startswith("decoder.tflite")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("sparse", "dense", "tolerance"),
    [
        ([nothing], [nothing], 1e-6),
        ([CSR], [edit.make_thin(1)], 1e-6),
        ([FLOAT_BLOCKS], [edit.make_thin(4)], 1e-6),
        ([BLOCKS], [edit.make_thin(16)], 2e-2),
        ([INT8], [nothing], 3e-2),
        ([DENSIFY], [edit.make_thin_embedding], 1e-6),
    ],
    ids=["dense", "csr", "1x4 float32", "1x16 int8", "int8", "densify"],
)
def test_accepted_forms_compute_what_their_dense_form_computes(
    sparse: list[Edit], dense: list[Edit], tolerance: float, lstm_models: tiny_bundle.TinyModels
) -> None:
    file = edit.edited(lstm_models.step_tflite, *sparse)
    check_tflite(file, "f", "step")
    expected = scores(edit.edited(lstm_models.step_tflite, *dense))
    assert np.abs(scores(file) - expected).max() <= tolerance * np.abs(expected).max()


def step_inputs() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    shapes = tiny_bundle.step_shapes("lstm")
    floats = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {"token": np.array([7], np.int32), **floats}


def scores(data: bytes) -> Any:
    return open_model(data, "step").run(step_inputs())["scores"]


WRONG_AND_REFUSED = [
    ("int8 CSR", "ai-edge-litert", [csr_int8], [edit.make_thin(1)]),
    ("int8 CSR", "tflite-runtime", [csr_int8], [edit.make_thin(1)]),
    ("1x16 int8 with a scale a channel", "tflite-runtime", [blocks_per_channel], [edit.make_thin(16)]),
    ("int8 with a scale a channel", "tflite-runtime", [dense_per_channel], [nothing]),
    ("embedding with a scale a word", "tflite-runtime", [embedding_per_channel], [nothing]),
    ("sparse weight of version 5", "ai-edge-litert", [CSR, old_version], [edit.make_thin(1)]),
]


@pytest.mark.parametrize(
    ("runtime", "wrong", "right"),
    [case[1:] for case in WRONG_AND_REFUSED],
    ids=[f"{c[0]}, {c[1]}" for c in WRONG_AND_REFUSED],
)
def test_forms_that_are_refused_are_computed_wrongly_by_a_stock_runtime(
    runtime: str, wrong: list[Edit], right: list[Edit], lstm_models: tiny_bundle.TinyModels, tmp_path: Path
) -> None:
    """Should a runtime learn one of them, this fails, and the rule can go. In a process, as it may crash."""
    if runtime == "tflite-runtime":
        pytest.importorskip("tflite_runtime")
    (tmp_path / "wrong").write_bytes(edit.edited(lstm_models.step_tflite, *wrong))
    (tmp_path / "right").write_bytes(edit.edited(lstm_models.step_tflite, *right))
    with pytest.raises(BadModelFile):
        check_tflite((tmp_path / "wrong").read_bytes(), "f", "step")
    np.savez(tmp_path / "inputs.npz", **step_inputs())
    code = (
        "import sys, pathlib, numpy as np\n"
        "from capprune_runtime.interpreter import open_model\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "inputs = dict(np.load(folder / 'inputs.npz'))\n"
        "models = [open_model((folder / n).read_bytes(), 'step', runtime=sys.argv[1]) for n in ('wrong', 'right')]\n"
        "wrong, right = (model.run(inputs)['scores'] for model in models)\n"
        "error = np.abs(wrong - right).max() / np.abs(right).max()\n"
        "sys.exit(0 if error < 0.05 else 42)\n"  # NaN is wrong too
    )
    arguments = [sys.executable, "-c", code, runtime, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 42 or done.returncode < 0, done.stderr


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_files_of_the_converter_are_accepted(cell: str, request: pytest.FixtureRequest) -> None:
    models = request.getfixturevalue(f"{cell}_models")
    encoder, step = check_tflite(models.encoder_tflite, "e", "encode"), check_tflite(models.step_tflite, "d", "step")
    assert encoder.signatures["encode"].inputs.keys() == {"photo"}
    assert step.signatures["step"].outputs.keys() == {"scores", "attention", *tiny_bundle.state_names(cell)}


def test_weight_only_int8_of_the_quantiser_is_accepted(lstm_models: tiny_bundle.TinyModels, tmp_path: Path) -> None:
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
    recipe = pytest.importorskip("ai_edge_quantizer.recipe")
    (tmp_path / "float").write_bytes(lstm_models.encoder_tflite)
    work = quantizer.Quantizer(str(tmp_path / "float"))
    work.load_quantization_recipe(recipe.weight_only_wi8_afp32())
    work.quantize().export_model(str(tmp_path / "int8.tflite"), overwrite=True)
    check_tflite((tmp_path / "int8.tflite").read_bytes(), "f", "encode")


def test_every_truncated_file_is_refused(lstm_models: tiny_bundle.TinyModels) -> None:
    data = edit.edited(lstm_models.step_tflite, CSR)
    for length in [*range(0, len(data) - 64, 211), *range(len(data) - 64, len(data), 4)]:
        with pytest.raises(BadModelFile):
            check_tflite(data[:length], "f", "step")


def test_a_file_that_repeats_one_buffer_is_refused_quickly(lstm_models: tiny_bundle.TinyModels) -> None:
    """Many tables that refer to one vector: a small file must not cost a large amount of work."""
    data = bytearray(edit.edited(lstm_models.step_tflite))
    sound = check_tflite(bytes(data), "f", "step")
    large = max(range(len(sound.buffers)), key=lambda n: len(sound.buffers[n]))
    raw = bytes(data)
    root = schema.Model.GetRootAs(raw, 0)
    target = raw.index(bytes(sound.buffers[large])) - 4
    for n in range(root.BuffersLength()):
        table = root.Buffers(n)._tab
        if place := table.Offset(4):
            offset = table.Pos + place
            if offset < target:
                data[offset : offset + 4] = (target - offset).to_bytes(4, "little")
    with pytest.raises(BadModelFile, match="overlap"):
        check_tflite(bytes(data), "f", "step")


@pytest.fixture(scope="session")
def sparse_files(lstm_models: tiny_bundle.TinyModels) -> list[bytes]:
    return [edit.edited(lstm_models.step_tflite, form) for form in (CSR, BLOCKS, DENSIFY)]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_raise_nothing_but_bad_model_file(data: st.DataObject, sparse_files: list[bytes]) -> None:
    content = bytearray(data.draw(st.sampled_from(sparse_files)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadModelFile):
        check_tflite(bytes(content), "f", "step")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["ai-edge-litert", "tflite-runtime"])
def test_no_damaged_file_that_is_accepted_crashes_an_interpreter(
    runtime: str, sparse_files: list[bytes], lstm_models: tiny_bundle.TinyModels, tmp_path: Path
) -> None:
    pytest.importorskip("tflite_runtime" if runtime == "tflite-runtime" else "ai_edge_litert")
    for number, content in enumerate([lstm_models.step_tflite, *sparse_files]):
        (tmp_path / f"sound-{number}.tflite").write_bytes(content)
    np.savez(tmp_path / "inputs.npz", **step_inputs())
    fuzz = [sys.executable, str(Path(__file__).with_name("fuzz_models.py")), runtime, "1", "10000", str(tmp_path)]
    done = subprocess.run(fuzz, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert outcomes.keys() <= {"refused", "ran", "refused by the interpreter"}, outcomes
    assert outcomes["refused"] > 1000 and outcomes["ran"] > 100
