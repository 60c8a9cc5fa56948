"""The content of a .tflite file, as frozen dataclasses. This module reads the structure; `tflite.check` checks it.

Field numbers are those of the TFLite schema. Everything that a captioning model does not need (custom operators,
external buffers, several subgraphs) is refused here or by `tflite.check`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import BadModelFile
from capprune_runtime.formats import MAX_MODEL_BYTES
from capprune_runtime.tflite.flatbuffer import Flatbuffer, Table
from capprune_runtime.tflite.operators import MAX_SIGNATURE_ENTRIES, OPERATORS, OptionField

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3

# TensorType of the schema; a captioning model does not use the others.
TENSOR_TYPES: dict[int, tuple[str, type[np.generic]]] = {
    0: ("float32", np.float32),
    1: ("float16", np.float16),
    2: ("int32", np.int32),
    4: ("int64", np.int64),
    9: ("int8", np.int8),
}
VOCABULARY_METADATA, MODEL_METADATA = "capprune.vocabulary", "capprune.model"
_MAX_METADATA_BYTES = {VOCABULARY_METADATA: 16 << 20, MODEL_METADATA: 1 << 20}
# Interpreters act on some metadata, such as the order of operators; they ignore the content of these.
_UNUSED_METADATA = ("CONVERSION_METADATA", "keep_stablehlo_constant", "min_runtime_version")
_OPERATORS_BY_CODE = {operator.code: operator for operator in OPERATORS.values()}
_INDEX_TYPES: dict[int, type[np.integer[Any]]] = {1: np.int32, 2: np.uint16, 3: np.uint8}

Found = TypeVar("Found")
Indices: TypeAlias = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Quantisation:
    """value = scale · (stored - zero_point), one pair for the tensor, or one for each index of `axis`."""

    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int


@dataclass(frozen=True, eq=False)
class SparseDimension:
    """One level of a sparse tensor: dense with a size, or compressed with row pointers and column indices."""

    compressed: bool
    dense_size: int
    segments: Indices
    indices: Indices


@dataclass(frozen=True)
class Sparsity:
    """The layout of a tensor's stored values."""

    traversal_order: tuple[int, ...]
    block_map: tuple[int, ...]
    dimensions: tuple[SparseDimension, ...]


@dataclass(frozen=True)
class Tensor:
    """One tensor; `dtype` is a NumPy name, `buffer` an index of `TfliteModel.buffers`."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    quantisation: Quantisation | None
    sparsity: Sparsity | None
    offset: int

    @property
    def elements(self) -> int:
        """Number of elements of the dense tensor."""
        return prod(self.shape)


@dataclass(frozen=True)
class Operator:
    """One operator: a name of `operators.OPERATORS`, tensor indices (-1: omitted) and options."""

    index: int
    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | float]
    offset: int


@dataclass(frozen=True)
class Signature:
    """A named way to call the model: tensor indices by name."""

    key: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True)
class TfliteModel:
    """A whole .tflite file with one subgraph.

    Args:
        size_bytes: Size of the file.
        tensors: Tensors by index.
        operators: Operators in execution order.
        inputs: Tensor indices of the subgraph's inputs.
        outputs: Tensor indices of the subgraph's outputs.
        signatures: Signatures by key.
        buffers: The stored bytes, as views of the file; empty for computed tensors.
        metadata: The bytes of `VOCABULARY_METADATA` and `MODEL_METADATA`, as far as the file holds them.
    """

    size_bytes: int
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    signatures: Mapping[str, Signature]
    buffers: tuple[memoryview, ...]
    metadata: Mapping[str, memoryview]
    _found: dict[tuple[object, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, find: Callable[[], Found], *key: object) -> Found:
        """Return the cached result for a key, so that a stored tensor with many readers is checked once."""
        if key not in self._found:
            self._found[key] = find()
        return cast(Found, self._found[key])

    def is_constant(self, tensor: Tensor) -> bool:
        """Return whether the tensor's values are stored in the file."""
        return len(self.buffers[tensor.buffer]) > 0

    def stored_values(self, tensor: Tensor) -> NDArray[Any]:
        """Return the stored numbers, flat; for a sparse tensor only the kept ones."""
        return np.frombuffer(self.buffers[tensor.buffer], np.dtype(tensor.dtype).newbyteorder("<"))


def read_tflite(data: bytes, where: str) -> TfliteModel:
    """Read a .tflite file.

    Args:
        data: The whole file.
        where: Its name, for messages.

    Raises:
        BadModelFile: The file is not a .tflite, refers to bytes outside itself, or uses an unsupported feature.
    """
    if len(data) > MAX_MODEL_BYTES:
        raise BadModelFile("a model file is too large", where=where, expected=f"at most {MAX_MODEL_BYTES} bytes")
    root = Flatbuffer(data, where, IDENTIFIER).root()
    root.require_fields(10)
    if (version := root.integer(0, "I")) != SCHEMA_VERSION:
        raise root.error("model: the schema has another version", SCHEMA_VERSION, version)
    if root.tables(8) or root.tables(9):
        raise root.error("model: buffers outside the file are not allowed")
    subgraphs = root.tables(2)
    if len(subgraphs) != 1:
        raise root.error("model: there must be exactly one subgraph", 1, len(subgraphs))
    graph = subgraphs[0]
    graph.require_fields(6)
    _read_unused(root, graph)
    buffers = tuple(_buffer(table) for table in root.tables(4))
    codes = tuple(_operator_code(table) for table in root.tables(1))
    metadata = _metadata(root, buffers)
    signatures = [_signature(table) for table in root.tables(7)]
    if len({signature.key for signature in signatures}) != len(signatures):
        raise root.error("model: two signatures have one name")
    return TfliteModel(
        size_bytes=len(data),
        tensors=tuple(_tensor(n, table, len(buffers)) for n, table in enumerate(graph.tables(0))),
        operators=tuple(_operator(n, table, codes) for n, table in enumerate(graph.tables(3))),
        inputs=_indices(graph, 1),
        outputs=_indices(graph, 2),
        signatures={signature.key: signature for signature in signatures},
        buffers=buffers,
        metadata=metadata,
    )


def _read_unused(root: Table, graph: Table) -> None:
    """Check that unused fields are inside the file too, because interpreters may read them."""
    root.text(3), root.numbers(5, np.int32), graph.text(4), graph.integer(5, "i")


def _buffer(table: Table) -> memoryview:
    table.require_fields(3)
    if table.integer(1, "Q") or table.integer(2, "Q"):
        raise table.error("buffer: data behind the flatbuffer is not allowed")
    content = table.bytes_(0)
    return memoryview(b"") if content is None else content


def _operator_code(table: Table) -> tuple[str, int]:
    """Return (name, version) of an entry in the table of operator codes."""
    table.require_fields(4)
    # Two fields, because the first was too small; the larger one applies, by the schema.
    code = max(table.integer(0, "b"), table.integer(3, "i"))
    if table.has(1):
        raise table.error("operator: custom operators are not allowed", found=ascii(table.text(1)))
    if code not in _OPERATORS_BY_CODE:
        raise table.error("operator: this one is not allowed", ", ".join(OPERATORS), f"builtin code {code}")
    rule, version = _OPERATORS_BY_CODE[code], table.integer(2, "i", 1)
    oldest, newest = rule.versions
    if not oldest <= version <= newest:
        raise table.error("operator: impossible version", f"{rule.name} of version {oldest} to {newest}", version)
    return rule.name, version


def _metadata(root: Table, buffers: tuple[memoryview, ...]) -> dict[str, memoryview]:
    names = (*_UNUSED_METADATA, *_MAX_METADATA_BYTES)
    found: dict[str, memoryview] = {}
    for table in root.tables(6):
        table.require_fields(2)
        name, buffer = table.text(0), table.integer(1, "I")
        if name not in names:
            raise table.error("metadata: this name is not allowed", ", ".join(names), ascii(name))
        if buffer >= len(buffers):
            raise table.error("metadata: there is no such buffer", f"below {len(buffers)}", buffer)
        if name not in _MAX_METADATA_BYTES:
            continue
        if name in found:
            raise table.error(f"metadata: {name} stands twice")
        if len(buffers[buffer]) > _MAX_METADATA_BYTES[name]:
            raise table.error(
                f"metadata: {name} is too large", f"at most {_MAX_METADATA_BYTES[name]} bytes", len(buffers[buffer])
            )
        found[name] = buffers[buffer]
    return found


def _tensor(index: int, table: Table, buffers: int) -> Tensor:
    table.require_fields(11)
    table.integer(8, "?")  # whether the shape is known; an empty one is a scalar here
    code, buffer = table.integer(1, "b"), table.integer(2, "I")
    if code not in TENSOR_TYPES:
        raise table.error(f"tensor {index}: this type is not allowed", sorted(TENSOR_TYPES), code)
    if buffer >= buffers:
        raise table.error(f"tensor {index}: there is no such buffer", f"below {buffers}", buffer)
    if table.integer(5, "?") or table.tables(9) or table.integer(10, "I"):
        raise table.error(f"tensor {index}: variables, variants and external buffers are not allowed")
    shape = _indices(table, 0)
    if table.has(7) and _indices(table, 7) not in ((), shape):
        raise table.error(f"tensor {index}: the shape is not fixed", shape, _indices(table, 7))
    quantisation, sparsity = table.table(4), table.table(6)
    return Tensor(
        index=index,
        name=table.text(3) or "",
        shape=shape,
        dtype=TENSOR_TYPES[code][0],
        buffer=buffer,
        quantisation=None if quantisation is None else _quantisation(quantisation),
        sparsity=None if sparsity is None else _sparsity(sparsity),
        offset=table.position,
    )


def _quantisation(table: Table) -> Quantisation | None:
    table.require_fields(7)
    table.numbers(0, np.float32), table.numbers(1, np.float32)
    if table.integer(4, "B") or table.has(5):
        raise table.error("quantisation: only scales and zero points are allowed")
    scales, zero_points = table.numbers(2, np.float32), table.numbers(3, np.int64)
    if (scales is None or not scales.size) and (zero_points is None or not zero_points.size):
        return None  # only the range seen in training, which is unused
    if scales is None or zero_points is None or scales.size != zero_points.size:
        raise table.error("quantisation: there must be as many zero points as scales")
    return Quantisation(scales, zero_points, table.integer(6, "i"))


def _sparsity(table: Table) -> Sparsity:
    table.require_fields(3)
    return Sparsity(
        traversal_order=_indices(table, 0),
        block_map=_indices(table, 1),
        dimensions=tuple(_sparse_dimension(dimension) for dimension in table.tables(2)),
    )


def _sparse_dimension(table: Table) -> SparseDimension:
    table.require_fields(6)
    if (form := table.integer(0, "b")) not in (0, 1):
        raise table.error("sparsity: unknown form of a dimension", "0 or 1", form)
    return SparseDimension(
        compressed=form == 1,
        dense_size=table.integer(1, "i"),
        segments=_index_vector(table, 2),
        indices=_index_vector(table, 4),
    )


def _index_vector(table: Table, field: int) -> Indices:
    kind, union = table.integer(field, "B"), table.table(field + 1)
    if kind == 0 and union is None:
        return np.empty(0, np.int32)
    if kind not in _INDEX_TYPES or union is None:
        raise table.error("sparsity: unknown type of indices", sorted(_INDEX_TYPES), kind)
    union.require_fields(1)
    values: Indices | None = union.numbers(0, _INDEX_TYPES[kind])
    return np.empty(0, np.int32) if values is None else values


def _operator(index: int, table: Table, codes: tuple[tuple[str, int], ...]) -> Operator:
    table.require_fields(14)
    code = table.integer(0, "I")
    if code >= len(codes):
        raise table.error(f"operator {index}: there is no such code", f"below {len(codes)}", code)
    name, version = codes[code]
    if table.has(5) or table.integer(9, "Q") or table.integer(10, "Q") or table.integer(11, "B") or table.has(12):
        raise table.error(f"operator {index} ({name}): custom options are not allowed")
    table.integer(6, "b"), table.integer(13, "i")
    mutating, intermediates = table.bytes_(7), table.numbers(8, np.int32)
    if (mutating is not None and any(mutating)) or (intermediates is not None and intermediates.size):
        raise table.error(f"operator {index} ({name}): variable inputs and intermediates are not allowed")
    return Operator(
        index=index,
        name=name,
        version=version,
        inputs=_indices(table, 1),
        outputs=_indices(table, 2),
        options=_options(index, name, table),
        offset=table.position,
    )


def _options(index: int, name: str, table: Table) -> dict[str, int | float]:
    """Return the operator's options by name, each checked against the range that the kernels support."""
    kind, options, rule = table.integer(3, "B"), table.table(4), OPERATORS[name]
    if kind == 0 and options is None and not rule.needs_options:
        return {}
    if kind != rule.options_type or options is None:
        raise table.error(
            f"operator {index} ({name}): the options do not fit", f"type {rule.options_type}", f"type {kind}"
        )
    options.require_fields(len(rule.options))
    return {field.name: _option(index, name, options, number, field) for number, field in enumerate(rule.options)}


def _option(index: int, name: str, options: Table, number: int, field: OptionField) -> int | float:
    if field.code == "vector":  # an old copy of the second input; interpreters use the input
        options.numbers(number, np.int32)
        return 0
    value = options.real(number) if field.code == "f" else options.integer(number, field.code, field.default)
    if not field.low <= value <= field.high:
        raise options.error(
            f"operator {index} ({name}): {field.name} is out of range", f"{field.low} to {field.high}", value
        )
    return value


def _signature(table: Table) -> Signature:
    table.require_fields(5)
    key = table.text(2)
    if key is None or table.integer(4, "I"):
        raise table.error("signature: it must have a name and belong to the first subgraph")
    return Signature(key, _named_tensors(table, 0, key), _named_tensors(table, 1, key))


def _named_tensors(table: Table, field: int, key: str) -> dict[str, int]:
    named: dict[str, int] = {}
    if len(entries := table.tables(field)) > MAX_SIGNATURE_ENTRIES:
        raise table.error("signature: it names too many tensors", f"at most {MAX_SIGNATURE_ENTRIES}", len(entries))
    for entry in entries:
        entry.require_fields(2)
        name = entry.text(0)
        if name is None or name in named:
            raise entry.error(f"signature {key!a}: a tensor has no name of its own", found=ascii(name))
        named[name] = entry.integer(1, "I")
    return named


def _indices(table: Table, field: int) -> tuple[int, ...]:
    values = table.numbers(field, np.int32)
    return () if values is None else tuple(values.tolist())
