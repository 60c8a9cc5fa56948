"""The wire reader: what does not lie in the file, stands twice, or is not known is refused before it is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_parts
import pytest
from onnx_edit import edited, initializer, node
from onnx_parts import Parts

import onnx
from capprune_runtime.errors import BadModelFile
from capprune_runtime.onnx import protobuf
from capprune_runtime.onnx.file import read_onnx


def key(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind)


def varint(value: int) -> bytes:
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    return bytes([*content, value])


def field(number: int, content: bytes) -> bytes:
    return key(number, 2) + varint(len(content)) + content


def test_reader_sees_what_the_onnx_package_sees(parts: Parts) -> None:
    for part in (parts.step, parts.encode):
        ours, theirs = read_onnx(part.converted, "f"), onnx.load_from_string(part.converted).graph
        assert [(n.operator, n.inputs, n.outputs) for n in ours.nodes] == [
            (n.op_type, tuple(n.input), tuple(n.output)) for n in theirs.node
        ]
        for mine, other in zip(ours.nodes, theirs.node, strict=True):
            expected = {a.name: onnx.helper.get_attribute_value(a) for a in other.attribute}
            for name, value in mine.attributes.items():
                told = expected[name]
                assert value == (told.decode() if isinstance(told, bytes) else tuple(told) if np.ndim(told) else told)
        for tensor in theirs.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            assert np.array_equal(ours.initializers[tensor.name].values, array)
            assert (ours.initializers[tensor.name].shape, ours.initializers[tensor.name].dtype) == (
                array.shape,
                array.dtype.name,
            )
        shapes = {v.name: tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim) for v in theirs.input}
        assert {value.name: value.shape for value in ours.inputs} == shapes


def test_stored_numbers_are_views_into_the_file(lstm: Parts) -> None:
    weight = read_onnx(lstm.step.converted, "f").initializers["decoder.output.weight"].values
    assert not weight.flags.writeable
    assert np.shares_memory(weight, np.frombuffer(lstm.step.converted, np.uint8))


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.1, 0.5, 0.9, 0.99999])
def test_file_that_is_cut_off_is_refused(share: float, lstm: Parts) -> None:
    with pytest.raises(BadModelFile):
        read_onnx(lstm.step.converted[: int(len(lstm.step.converted) * share)], "f")


def test_every_cut_of_a_small_file_is_refused(lstm: Parts) -> None:
    def shrink(model: Any) -> None:
        del model.graph.initializer[:], model.graph.node[2:]

    small = edited(lstm.step.converted, shrink)
    read_onnx(small, "f")
    for size in range(len(small)):
        with pytest.raises(BadModelFile):
            read_onnx(small[:size], "f")


TAILS = {
    "trailing bytes": (b"\0\0\0\0", "not known"),
    "unknown field": (field(99, b"x"), "not known"),
    "field of training": (field(20, b""), "not known"),
    "functions": (field(25, b""), "not known"),
    "metadata": (field(14, field(1, b"ort_config")), "not known"),
    "comment": (field(6, b"hello"), "not known"),
    "domain of the model": (field(4, b"com.example"), "not known"),
    "group": (key(1, 3), "not known"),
    "64-bit number": (key(1, 1) + bytes(8), "not known"),
    "number where a message is expected": (key(7, 0) + varint(1), "not known"),
    "second graph, which parsers merge with the first": (field(7, b""), "graph stands twice"),
    "second version": (key(1, 0) + varint(10), "ir_version stands twice"),
    "length beyond the file": (key(8, 2) + varint(1 << 40), "outside its message"),
    "length of 64 bits": (key(8, 2) + varint((1 << 64) - 1), "outside its message"),
    "varint without an end": (b"\xff" * 20, "too many bytes"),
    "varint of more than 64 bits": (key(8, 2) + b"\xff" * 9 + b"\x7f", "shortest form"),
    "varint that is longer than it must be": (key(8, 2) + b"\x80\x00", "shortest form"),
    "second standard": (field(8, field(1, b"") + key(2, 0) + varint(20)), "too many of opset_import"),
}


@pytest.mark.parametrize("name", TAILS)
def test_what_stands_behind_a_sound_model_is_refused(name: str, lstm: Parts) -> None:
    tail, rule = TAILS[name]
    with pytest.raises(BadModelFile, match=rule):
        read_onnx(lstm.step.converted + tail, "decoder.onnx")


def test_message_names_the_file_and_the_byte(lstm: Parts) -> None:
    with pytest.raises(BadModelFile, match=f"decoder.onnx, model, byte {len(lstm.step.converted)}"):
        read_onnx(lstm.step.converted + field(99, b"x"), "decoder.onnx")


def test_two_kinds_in_one_file_are_refused() -> None:
    both = key(1, 0) + varint(10) + field(2, b"TFL3")
    assert both[4:8] == b"TFL3"
    with pytest.raises(BadModelFile, match="another kind"):
        read_onnx(both, "f")


def test_file_of_nothing_but_tiny_fields_is_given_up(monkeypatch: pytest.MonkeyPatch, lstm: Parts) -> None:
    monkeypatch.setattr(protobuf._File, "fields_left", 100)
    monkeypatch.setattr(protobuf._File.__init__, "__defaults__", (100,))
    with pytest.raises(BadModelFile, match="too many fields"):
        read_onnx(lstm.step.converted, "f")


def external(model: Any) -> None:
    tensor = initializer(model, "decoder.rnn.weight")
    onnx.external_data_helper.set_external_data(tensor, "../../etc/passwd")
    tensor.ClearField("raw_data")


def numbers_in_a_list(model: Any) -> None:
    tensor = initializer(model, "decoder.rnn.bias")
    tensor.float_data.extend(onnx.numpy_helper.to_array(tensor).tolist())
    tensor.ClearField("raw_data")


def dims(*sizes: int) -> Any:
    def edit(model: Any) -> None:
        tensor = initializer(model, "decoder.rnn.bias")
        tensor.ClearField("dims")
        tensor.dims.extend(sizes)

    return edit


def subgraph(model: Any) -> None:
    node(model, "Tanh").attribute.append(onnx.helper.make_attribute("body", onnx.GraphProto(name="g")))


def two_attributes(model: Any) -> None:
    softmax = node(model, "Softmax")
    softmax.attribute.append(softmax.attribute[0])


def attribute_of_two_types(model: Any) -> None:
    node(model, "Softmax").attribute[0].ints.append(3)


def set_(path: str, value: Any) -> Any:
    """Set a field by its path, such as `graph.node.0.domain`."""

    def edit(model: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            model = model[int(name)] if name.isdigit() else getattr(model, name)
        setattr(model, last, value)

    return edit


EDITS: dict[str, tuple[Any, str]] = {
    "data outside the file": (external, "field is not known"),
    "numbers outside raw_data": (numbers_in_a_list, "field is not known"),
    "double": (set_("graph.initializer.0.data_type", 11), "type is not allowed"),
    "string": (set_("graph.initializer.0.data_type", 8), "type is not allowed"),
    "type of tomorrow": (set_("graph.initializer.0.data_type", 999), "type is not allowed"),
    "one number too few": (dims(onnx_parts.WIDTH * 4 + 1), "do not fill"),
    "one number too many": (dims(onnx_parts.WIDTH * 4 - 1), "do not fill"),
    "no numbers": (dims(0), "impossible shape"),
    "negative size": (dims(-1), "impossible shape"),
    "two negative sizes whose product fits": (dims(-16, -16), "impossible shape"),
    "size that overflows": (dims(1 << 62, 4), "impossible shape"),
    "product that overflows": (dims(1 << 24, 1 << 24, 1 << 24), "too large"),
    "too many dimensions": (dims(*[1] * 9), "impossible shape"),
    "control flow": (subgraph, "field is not known"),
    "attribute twice": (two_attributes, "stands twice"),
    "attribute of two types": (attribute_of_two_types, "type is not allowed"),
    "attribute of a function": (set_("graph.node.0.attribute.0.ref_attr_name", "x"), "field is not known"),
    "operator of another domain": (set_("graph.node.0.domain", "com.microsoft"), "field is not known"),
    "comment of an operator": (set_("graph.node.0.doc_string", "x"), "field is not known"),
    "overload": (set_("graph.node.0.overload", "x"), "field is not known"),
    "sparse tensor": (lambda model: model.graph.sparse_initializer.add(), "field is not known"),
    "shapes between operators": (lambda model: model.graph.value_info.add(), "field is not known"),
    "quantisation annotation": (lambda model: model.graph.quantization_annotation.add(), "field is not known"),
    "training": (lambda model: model.training_info.add(), "field is not known"),
    "function": (lambda model: model.functions.add(), "field is not known"),
    "later opset": (set_("opset_import.0.version", 21), "standard operators"),
    "earlier opset": (set_("opset_import.0.version", 7), "standard operators"),
    "other domain": (set_("opset_import.0.domain", "com.microsoft"), "standard operators"),
    "two domains": (lambda model: model.opset_import.add(domain="ai.onnx.ml", version=1), "too many of opset_import"),
    "no opset": (lambda model: model.ClearField("opset_import"), "standard operators"),
    "later format": (set_("ir_version", 99), "another version"),
    "negative format": (set_("ir_version", -1), "another version"),
    "no graph": (lambda model: model.ClearField("graph"), "graph is missing"),
    "no type": (lambda model: model.graph.input[0].ClearField("type"), "type is missing"),
    "no shape": (lambda model: model.graph.input[0].type.tensor_type.ClearField("shape"), "shape is missing"),
    "sequence": (lambda model: model.graph.input[0].type.sequence_type.SetInParent(), "field is not known"),
    "dimension without a size": (
        lambda model: model.graph.input[1].type.tensor_type.shape.dim[1].ClearField("value"),
        "size or a name",
    ),
    "denotation": (set_("graph.input.0.type.denotation", "IMAGE"), "field is not known"),
    "long name": (set_("graph.node.0.op_type", "x" * 1000), "name is too long"),
    "two stored tensors of one name": (
        lambda model: model.graph.initializer.append(model.graph.initializer[0]),
        "two stored tensors",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_a_caption_model_does_not_need_is_refused(name: str, lstm: Parts) -> None:
    edit, rule = EDITS[name]
    with pytest.raises(BadModelFile, match=rule):
        read_onnx(edited(lstm.step.converted, edit), "decoder.onnx")


def test_name_that_is_not_utf_8_is_refused(lstm: Parts) -> None:
    with pytest.raises(BadModelFile, match="UTF-8"):
        read_onnx(lstm.step.converted.replace(b"Softmax", b"Soft\xffax"), "f")


def test_file_over_the_cap_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch, lstm: Parts) -> None:
    monkeypatch.setattr("capprune_runtime.onnx.file.MAX_MODEL_BYTES", 1000)
    with pytest.raises(BadModelFile, match="too large"):
        read_onnx(lstm.step.converted, "f")
