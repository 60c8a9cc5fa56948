"""The .tflite reader against the schema's own reader, on files that litert-torch and the quantiser wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tflite_edit
import tiny_bundle

from capprune_runtime.tflite.file import TENSOR_TYPES, read_tflite
from capprune_runtime.tflite.operators import OPERATORS, OperatorRule, table_bytes

schema = tflite_edit.schema
SOURCE = Path(schema.__file__).read_text()


@pytest.mark.parametrize("part", ["encoder_tflite", "step_tflite", "csr", "blocks", "densify"])
def test_reader_agrees_with_the_schemas_reader(part: str, lstm_models: tiny_bundle.TinyModels) -> None:
    edits = {
        "csr": tflite_edit.make_csr,
        "blocks": tflite_edit.make_int8_blocks,
        "densify": tflite_edit.make_densified_embedding,
    }
    data = tflite_edit.edited(lstm_models.step_tflite, edits[part]) if part in edits else getattr(lstm_models, part)
    model, expected = read_tflite(data, "f"), schema.ModelT.InitFromPackedBuf(data, 0)
    graph = expected.subgraphs[0]
    assert model.inputs == tuple(graph.inputs) and model.outputs == tuple(graph.outputs)
    assert len(model.tensors) == len(graph.tensors) and len(model.buffers) == len(expected.buffers)
    for tensor, other in zip(model.tensors, graph.tensors, strict=True):
        assert (tensor.name, tensor.shape, tensor.buffer) == (other.name.decode(), tuple(other.shape), other.buffer)
        assert TENSOR_TYPES[other.type][0] == tensor.dtype
        assert (tensor.sparsity is None) == (other.sparsity is None)
        if tensor.sparsity is not None:
            assert tensor.sparsity.traversal_order == tuple(other.sparsity.traversalOrder)
            for level, metadata in zip(tensor.sparsity.dimensions, other.sparsity.dimMetadata, strict=True):
                assert (level.compressed, level.dense_size) == (metadata.format == 1, metadata.denseSize)
                if level.compressed:
                    assert np.array_equal(level.segments, metadata.arraySegments.values)
                    assert np.array_equal(level.indices, metadata.arrayIndices.values)
        if tensor.quantisation is not None:
            assert np.array_equal(tensor.quantisation.scales, other.quantization.scale)
            assert np.array_equal(tensor.quantisation.zero_points, other.quantization.zeroPoint)
        stored = expected.buffers[other.buffer].data
        assert bytes(model.buffers[tensor.buffer]) == (b"" if stored is None else bytes(stored))
    for operator, other in zip(model.operators, graph.operators, strict=True):
        code = expected.operatorCodes[other.opcodeIndex]
        assert (OPERATORS[operator.name].code, operator.version) == (code.builtinCode, code.version)
        assert operator.inputs == tuple(other.inputs) and operator.outputs == tuple(other.outputs)
    for signature, other in zip(model.signatures.values(), expected.signatureDefs, strict=True):
        assert signature.key == other.signatureKey.decode()
        assert signature.inputs == {entry.name.decode(): entry.tensorIndex for entry in other.inputs}
        assert signature.outputs == {entry.name.decode(): entry.tensorIndex for entry in other.outputs}


SCHEMA_CLASSES = dict(re.findall(r"^class (\w+)\(object\):\n(.*?)(?=^class |\Z)", SOURCE, re.MULTILINE | re.DOTALL))
OPTION_TABLES = {number: name for name, number in vars(schema.BuiltinOptions).items() if not name.startswith("_")}
SCALAR_ACCESSOR = re.compile(
    r"Offset\((\d+)\)\)\n        if o != 0:\n"
    r"            return \w*\(?self\._tab\.Get\(flatbuffers\.number_types\.(\w+)Flags"
)
WIDTHS = {"Bool": "?", "Int8": "b", "Int32": "i", "Float32": "f"}


@pytest.mark.parametrize("rule", OPERATORS.values(), ids=lambda rule: rule.name)
def test_operator_table_has_the_numbers_of_the_schema(rule: OperatorRule) -> None:
    assert getattr(schema.BuiltinOperator, rule.name) == rule.code
    source = SCHEMA_CLASSES[OPTION_TABLES[rule.options_type]] if rule.options_type else ""
    scalars = [(int(place), WIDTHS[width]) for place, width in SCALAR_ACCESSOR.findall(source)]
    expected = [(4 + 2 * n, field.code) for n, field in enumerate(rule.options) if field.code != "vector"]
    assert scalars == expected


@pytest.mark.parametrize("rule", [rule for rule in OPERATORS.values() if rule.options], ids=lambda rule: rule.name)
def test_options_have_the_defaults_of_the_schema(rule: OperatorRule) -> None:
    blank = vars(getattr(schema, OPTION_TABLES[rule.options_type] + "T")())
    defaults = [float(value) for value in blank.values() if isinstance(value, (bool, int, float))]
    assert defaults == [float(field.default) for field in rule.options if field.code != "vector"]


def test_the_specification_lists_the_operators_that_are_allowed() -> None:
    page = Path(__file__).parents[2] / "docs" / "bundle_format.md"
    line = next(line for line in page.read_text().splitlines() if line.strip().startswith("ADD, "))
    assert line.strip(" .").split(", ") == sorted(OPERATORS)


KEYS = {
    "name", "code", "versions", "inputs", "outputs", "constants", "may_omit", "forms", "options_type", "needs_options", "options",
}  # fmt: skip


def test_the_table_holds_only_keys_that_its_readers_know() -> None:
    table = json.loads(table_bytes())
    assert table.keys() == {"about", "limits", "operators"}
    assert [entry["name"] for entry in table["operators"]] == sorted(OPERATORS)
    for entry in table["operators"]:
        assert {"name", "code", "versions", "inputs", "forms"} <= entry.keys() <= KEYS
        assert 1 <= entry["versions"][0] <= entry["versions"][1] and 1 <= entry["inputs"][0] <= entry["inputs"][1]
        assert entry.get("outputs", "option") == "option"
        for option in entry.get("options", ()):
            assert {"name", "type", "range"} <= option.keys() <= {"name", "type", "range", "default", "why"}
            assert option["range"][0] <= option["range"][1]
