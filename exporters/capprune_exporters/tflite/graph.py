"""Work with the graph of a .tflite as the schema's objects: read, pack, new operators, metadata.

The schema's Python classes are not typed, so a model, tensor or operator is `Any` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from capprune_runtime.errors import ExportError

BYTES_ALIGNMENT = 16  # required by the TFLite schema for stored weights, and efficient for vector units on ARM
FILE_IDENTIFIER = b"TFL3"
VOCABULARY_METADATA, MODEL_METADATA = "capprune.vocabulary", "capprune.model"

_OPTIONS = {
    schema.BuiltinOperator.DENSIFY: (schema.BuiltinOptions.DensifyOptions, schema.DensifyOptionsT),
    schema.BuiltinOperator.DEQUANTIZE: (schema.BuiltinOptions.DequantizeOptions, schema.DequantizeOptionsT),
    schema.BuiltinOperator.QUANTIZE: (schema.BuiltinOptions.QuantizeOptions, schema.QuantizeOptionsT),
}


def unpack(data: bytes) -> Any:
    """Return the bytes of a .tflite as a schema object.

    Raises:
        ExportError: The model has more than one subgraph.
    """
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    if len(model.subgraphs) != 1:
        raise ExportError("only models with one subgraph can be rewritten", found=f"{len(model.subgraphs)} subgraphs")
    return model


def pack(model: Any) -> bytes:
    """Return the bytes of a .tflite from a schema object."""
    builder = _Builder(1 << 20)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # the package has no types
    """Aligns vectors of bytes as the schema requires, which its Python classes do not."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        """Start a vector with the required alignment; see the base class."""
        start: int = super().StartVector(elemSize, numElems, BYTES_ALIGNMENT if elemSize == 1 else alignment)
        return start


def add_metadata(data: bytes, vocabulary_text: bytes, manifest_json: bytes) -> bytes:
    """Store the metadata that a model needs for use in its file, replacing earlier metadata of these names.

    Args:
        data: A .tflite.
        vocabulary_text: The bytes of vocabulary.txt.
        manifest_json: UTF-8 JSON of {"preprocessing": …, "decoding": …} as in the manifest.
    """
    model = unpack(data)
    added = {VOCABULARY_METADATA: vocabulary_text, MODEL_METADATA: manifest_json}
    model.metadata = [entry for entry in model.metadata or [] if entry.name.decode() not in added]
    for name, content in added.items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, add_buffer(model, content)
        model.metadata.append(entry)
    forget_unused_buffers(model)
    return pack(model)


def add_buffer(model: Any, content: bytes) -> int:
    """Return the index of a new buffer; shared buffers are not changed in place."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def forget_unused_buffers(model: Any) -> None:
    """Empty the buffers that no tensor and no metadata refers to."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None


def add_computed(model: Any, like: Any, suffix: bytes, kind: int) -> int:
    """Return the index of a new computed tensor: shape and name from another, type `kind`."""
    tensor = schema.TensorT()
    tensor.shape, tensor.type = like.shape, kind
    tensor.buffer = 0  # the empty buffer, by convention
    tensor.name = (like.name or b"tensor") + suffix
    tensors = model.subgraphs[0].tensors
    tensors.append(tensor)
    return len(tensors) - 1


def new_operator(model: Any, builtin: int, inputs: Sequence[int], outputs: Sequence[int], version: int = 1) -> Any:
    """Return a DENSIFY, DEQUANTIZE or QUANTIZE that is not yet in the graph."""
    operator = schema.OperatorT()
    operator.opcodeIndex = _operator_code(model, builtin, version)
    operator.inputs, operator.outputs = list(inputs), list(outputs)
    operator.builtinOptionsType, options = _OPTIONS[builtin]
    operator.builtinOptions = options()
    return operator


def operator_name(model: Any, operator: Any) -> str:
    """Return the schema's name, such as FULLY_CONNECTED."""
    code = model.operatorCodes[operator.opcodeIndex].builtinCode
    return next(str(name) for name, value in vars(schema.BuiltinOperator).items() if value == code)


def set_version(model: Any, operator: Any, version: int) -> None:
    """Set the version of one operator, without changing others that share its code."""
    builtin = model.operatorCodes[operator.opcodeIndex].builtinCode
    operator.opcodeIndex = _operator_code(model, builtin, version)


def _operator_code(model: Any, builtin: int, version: int) -> int:
    """Return the index of a builtin operator's code of this version, added if missing."""
    for number, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version) == (builtin, version):
            return number
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
