"""Model files that each break one rule, made from a sound one by the schema's own object API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from attacks import Attack
from bundle_mutations import Files, sealed
from subjects import edit
from world import World

from capprune_runtime.errors import BadModelFile

schema = edit.schema
Edit = edit.Edit
# Name, edits of a sound decoder, what the message says.
Entry = tuple[str, list[Edit], str]


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


def blocks_of_8(model: Any) -> None:
    tensor = edit.scores_weight(model)
    edit.store_sparse(model, tensor, edit.thinned(edit.dense_values(model, tensor), 8), 8)


def sparse_bias(model: Any) -> None:
    """A sparse tensor where ADD, not FULLY_CONNECTED, reads it."""
    add = edit.first_operator(model, 0)
    add.inputs = [edit.scores_operator(model).inputs[1], add.inputs[1]]


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


def computed_bias(model: Any) -> None:
    user = edit.scores_operator(model)
    bias = edit.computed_like(model, graph(model).tensors[user.inputs[2]], b"bias")
    twice = [user.inputs[2], user.inputs[2]]
    graph(model).operators.insert(0, edit.new_operator(model, 0, twice, [bias], 11, schema.AddOptionsT()))
    user.inputs = [*user.inputs[:2], bias]


def table_of(model: Any) -> tuple[Any, Any]:
    """The sparse embedding behind a DENSIFY, and something dense of its shape."""
    table = graph(model).tensors[edit.first_operator(model, 124).inputs[0]]
    return table, np.ones(table.shape, np.float32)


CSR, BLOCKS, FLOAT_BLOCKS, INT8 = edit.make_csr, edit.make_int8_blocks, edit.make_float_blocks, edit.make_int8
DENSIFY = edit.make_densified_embedding

LAYOUT: list[Entry] = [
    ("external buffer", [first_tensor(externalBuffer=1)], "external buffers are not allowed"),
    ("data behind the file", [buffer_field(offset=64, size=64)], "behind the flatbuffer"),
    ("first buffer", [first_buffer_used], "first must be empty"),
    ("tensor buffer", [first_tensor(buffer=9999)], "no such buffer"),
    ("truncated values", [cut_values], "do not fill the shape"),
]  # fmt: skip
SIZES: list[Entry] = [
    ("rank", [weight(shape=[1, 1, 1, 1, 24, 32])], "too many dimensions"),
    ("zero size", [first_tensor(shape=[0])], "impossible shape"),
    ("negative size", [first_tensor(shape=[-1])], "impossible shape"),
    ("shape product overflows 32 bits", [weight(shape=[65536, 65536])], "too large"),
    ("shape product overflows 64 bits", [weight(shape=[1 << 24] * 4)], "too large"),
    ("shape that is not fixed", [first_tensor(shapeSignature=[-1])], "shape is not fixed"),
    ("shape larger than the values", [weight(shape=[25, 32])], "do not fill the shape"),
]  # fmt: skip
SPARSE: list[Entry] = [
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
    ("int8 CSR", [edit.make_int8_csr], "stock runtimes compute wrongly"),
    ("int8 blocks, scale a channel", [edit.make_int8_blocks_per_row], "stock runtimes compute wrongly"),
    ("int8 blocks, -128", [BLOCKS, int8_value(-128)], "must not hold -128"),
    ("sparse tensor read by ADD", [CSR, sparse_bias], "cannot read a sparse tensor"),
    ("sparse weight of an old version", [CSR, edit.make_version(5)], "read the sparse weight as a dense one"),
    ("sparse weight of another version", [CSR, edit.make_version(7)], "read the sparse weight as a dense one"),
    ("blocks of another version", [BLOCKS, edit.make_version(4)], "read the sparse weight as a dense one"),
    ("int8 embedding behind DENSIFY and DEQUANTIZE", [edit.make_dequantised_embedding], "memory that nothing has written"),
    ("int8 weight behind DENSIFY and DEQUANTIZE, of version 8", [edit.make_densified_int8_weight, edit.make_version(8)],
     "memory that nothing has written"),
    ("int8 weight behind DENSIFY and DEQUANTIZE, with a computed bias", [edit.make_densified_int8_weight, computed_bias],
     "no exporter writes this form"),
    ("blocks behind DENSIFY", [DENSIFY, lambda m: edit.store_sparse(m, *table_of(m), 4)], "without blocks only"),
    ("sparse embedding without DENSIFY", [DENSIFY, lambda m: setattr(
        edit.first_operator(m, 7), "inputs", [0, edit.first_operator(m, 124).inputs[0]])], "cannot read a sparse"),
]  # fmt: skip
SCALES: list[Entry] = [
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
    ("scale a channel", [edit.make_int8_per_row], "FULLY_CONNECTED with a scale a row"),
    ("scale a word", [edit.make_int8_embedding_per_row], "EMBEDDING_LOOKUP with a scale a row"),
    ("scale larger than any number", [INT8, scales([1e30], [0])], "scale is too large"),
    ("scales of int32 that is no bias", [lambda m: edit.set_scales(graph(m).tensors[0], [1.0], [0])], "only where they are a b"),
    ("scale of a sparse embedding changed on the way", [edit.make_densified_int8_embedding, lambda m: edit.set_scales(
        graph(m).tensors[edit.first_operator(m, 124).outputs[0]], [0.5], [0])], "DENSIFY does not convert"),
    ("zero point of sparse int8", [edit.make_densified_int8_embedding, lambda m: edit.set_scales(
        graph(m).tensors[edit.first_operator(m, 124).inputs[0]], [0.5], [1])], "sparse int8 with anything but one scale"),
]  # fmt: skip
NUMBERS: list[Entry] = [
    ("weight that is NaN", [float_value(np.nan)], "not a finite number"),
    ("weight that is infinite", [float_value(-np.inf)], "not a finite number"),
    ("weight that is infinite, sparse", [float_value(np.inf), CSR], "not a finite number"),
]  # fmt: skip
STRUCTURE: list[Entry] = [
    ("version", [lambda m: setattr(m, "version", 4)], "schema has another version"),
    ("no subgraph", [lambda m: setattr(m, "subgraphs", [])], "exactly one subgraph"),
    ("two subgraphs", [second_subgraph], "exactly one subgraph"),
    ("no operators", [lambda m: setattr(graph(m), "operators", [])], "computes nothing"),
    ("metadata that orders operators", [metadata(b"model_control_dependencies")], "metadata: this name"),
    ("metadata buffer", [metadata(b"min_runtime_version", 9999)], "metadata: there is no such buffer"),
    ("tensor type", [first_tensor(type=5)], "type is not allowed"),
    ("variable", [first_tensor(isVariable=True)], "variables, variants"),
    ("custom operator", [custom_operator], "custom operators"),
    ("operator CUSTOM", [operator_code(32)], "this one is not allowed"),
    ("operator CALL_ONCE", [operator_code(129)], "this one is not allowed"),
    ("operator WHILE", [operator_code(119)], "this one is not allowed"),
    ("operator code out of range", [operator(0, opcodeIndex=999)], "no such code"),
    ("operator version", [lambda m: setattr(m.operatorCodes[0], "version", 0)], "impossible version"),
    ("operator of a later version", [lambda m: setattr(m.operatorCodes[0], "version", 99)], "impossible version"),
    ("custom options", [operator(0, customOptions=[1, 2, 3])], "custom options"),
    ("large custom options", [operator(0, largeCustomOptionsOffset=8, largeCustomOptionsSize=8)], "custom options"),
    ("intermediates", [operator(0, intermediates=[1])], "intermediates"),
    ("mutating inputs", [operator(0, mutatingVariableInputs=[True, False])], "variable inputs"),
    ("options of another operator", [operator(9, builtinOptionsType=9, builtinOptions=schema.SoftmaxOptionsT())],
     "options do not fit"),
    ("options missing", [operator(9, builtinOptionsType=0, builtinOptions=None)], "options do not fit"),
    ("shuffled weights", [options(9, weightsFormat=1)], "weights_format is out of range"),
    ("activation", [options(0, fusedActivationFunction=9)], "activation is out of range"),
    ("activation that kernels leave out", [options(0, fusedActivationFunction=4)], "activation is out of range"),
    ("activation of CONCATENATION", [options(2, fusedActivationFunction=1)], "activation is out of range"),
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
    ("signature name that ends early", [signature_entry(name=b"scores\0")], "ends before its end"),
    ("metadata of another vocabulary", [edit.add_metadata("capprune.vocabulary", b"<pad>\n")], "another vocabulary"),
    ("metadata of another model", [edit.add_metadata("capprune.model", b"{}")], "another preprocessing or decoding"),
    ("metadata that is no JSON", [edit.add_metadata("capprune.model", b"{'a': 1}")], "cannot be read"),
    ("metadata with a key twice", [edit.add_metadata("capprune.model", b'{"a": 1, "a": 1}')], "cannot be read"),
    ("metadata over its cap", [edit.add_metadata("capprune.model", bytes((1 << 20) + 1))], "is too large"),
    ("metadata twice", [edit.add_metadata("capprune.model", b"{}")] * 2, "stands twice"),
]  # fmt: skip


def with_decoder(edits: list[Edit]) -> Callable[[World], Files]:
    def make(world: World) -> Files:
        files = world.bundles["lstm"]
        return sealed(files | {"decoder.tflite": edit.edited(files["decoder.tflite"], *edits)})

    return make


def with_int8_encoder(change: Edit) -> Callable[[World], Files]:
    """A bundle whose encoder computes in int8, with something changed."""

    def make(world: World) -> Files:
        (encoder,) = (subject.data for subject in world.subjects if subject.name == "lstm encode, int8")
        return sealed(world.bundles["lstm"] | {"encoder.tflite": edit.edited(encoder, change)})

    return make


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[World], Files]:
    def make(world: World) -> Files:
        files = world.bundles["lstm"]
        return sealed(files | {"decoder.tflite": change(files["decoder.tflite"])})

    return make


def tensor_of(code: int, end: str, position: int, **quantisation: Any) -> Edit:
    """Other scales of a tensor that the first operator of this code reads (`inputs`) or writes (`outputs`)."""

    def apply(model: Any) -> None:
        tensor = graph(model).tensors[getattr(edit.first_operator(model, code), end)[position]]
        for name, value in quantisation.items():
            setattr(tensor.quantization, name, value(getattr(tensor.quantization, name)))

    return apply


def large_bias(model: Any) -> None:
    bias = graph(model).tensors[edit.first_operator(model, 3).inputs[2]]
    edit.store(model, bias, np.full(bias.shape, 2**31 - 1, np.int32))


def every_buffer_the_same(data: bytes) -> bytes:
    """Many tables that refer to one vector: a small file that would cost a large amount of work."""
    content = bytearray(data)
    root = schema.Model.GetRootAs(data, 0)
    vectors = {}
    for number in range(root.BuffersLength()):
        table = root.Buffers(number)._tab
        if field := table.Offset(4):
            vectors[table.Pos + field] = table.Vector(field) - 4
    target = max(vectors.values(), key=lambda place: int.from_bytes(data[place : place + 4], "little"))
    for place in vectors:
        if place < target:
            content[place : place + 4] = (target - place).to_bytes(4, "little")
    return bytes(content)


def word(place: int, value: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + value.to_bytes(4, "little") + data[place + 4 :]


INT8_GRAPHS: list[tuple[str, Edit, str]] = [
    ("bias of another scale", tensor_of(3, "inputs", 2, scale=lambda s: s * 2), "not the scales of input times weight"),
    ("bias without scales", lambda m: vars(graph(m).tensors[edit.first_operator(m, 3).inputs[2]]).update(quantization=None),
     "must be stored and have scales"),
    ("bias that overflows", large_bias, "sums of int8 products overflow"),
    ("output scale that stops the process", tensor_of(3, "outputs", 0, scale=lambda s: s * 1e-8), "too far apart"),
    ("scales on the wrong axis", tensor_of(3, "inputs", 1, quantizedDimension=lambda axis: 3), "do not fit the shape"),
    ("copy that claims another scale", tensor_of(22, "outputs", 0, scale=lambda s: s * 2), "does not convert"),
    ("copy that claims another zero point", tensor_of(22, "outputs", 0, zeroPoint=lambda z: z + 1), "does not convert"),
    ("output of TANH in another scale", tensor_of(28, "outputs", 0, scale=lambda s: s * 2), "of one scale only"),
]  # fmt: skip
RAW: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("cut off in the middle", lambda data: data[: len(data) // 2], "byte"),
    ("cut off behind the identifier", lambda data: data[:8], "lies outside the file"),
    ("empty", lambda data: b"", "cut off"),
    ("another identifier", lambda data: data[:4] + b"TFL4" + data[8:], "another kind|ONNX|protobuf|field|wire"),
    ("first reference past the end", word(0, 1 << 31), "lies outside the file"),
    ("first reference at itself", word(0, 0), "points at itself"),
    ("buffers that overlap", every_buffer_the_same, "overlap"),
]

ATTACKS = (
    *(
        Attack(row, name, with_decoder(edits), BadModelFile, says)
        for row, entries in {6: LAYOUT, 7: SIZES, 8: SPARSE, 10: SCALES, 11: NUMBERS, 15: STRUCTURE}.items()
        for name, edits, says in entries
    ),
    *(Attack(10, name, with_int8_encoder(change), BadModelFile, says) for name, change, says in INT8_GRAPHS),
    *(Attack(6, name, with_bytes(change), BadModelFile, says) for name, change, says in RAW),
)
