"""Rewriting the weights of a finished .tflite as sparse tensors that the stock runtimes execute.

litert-torch writes pruned weights as dense tensors full of zeros. Here each constant float32 matrix with enough zeros
becomes

* CSR, when it is the weight of a FULLY_CONNECTED in a one-row graph: the runtime has a kernel for exactly this;
* CSR behind a DENSIFY, otherwise: small in the file, expanded once at load, dense speed.

Forms that runtimes accept and compute wrongly (int8 CSR, int8 blocks with a scale a row) are never written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from capprune_runtime.errors import ExportError

SMALLEST = 4096  # weights: below this, row pointers and one more operator cost more than zeros do
SPARSE_KERNEL_PAYS = 0.9  # sparsity from which CSR is about as fast as dense float32; below it only the file gains
DENSIFY_PAYS = 0.5  # sparsity from which 6 bytes a kept weight are clearly fewer than 4 a weight
SPARSE_FULLY_CONNECTED_VERSION = 8  # the first operator version whose kernel reads sparse weights
WEIGHT_INPUT = 1  # of FULLY_CONNECTED; the kernel knows sparse values in no other place
BYTES_ALIGNMENT = 16  # what the TFLite schema asks of stored weights, and vector units on ARM like
FILE_IDENTIFIER = b"TFL3"


@dataclass(frozen=True)
class StoredTensor:
    """How one weight tensor ended up in the file.

    Attributes:
        operator: The operator that uses it.
        shape: As in the file, (outputs, inputs) for a matrix.
        kept: Weights that are not zero.
        form: `dense_float32`, `csr_float32` or `densify_float32`.
        size_bytes: Values and, when sparse, indices and row pointers.
    """

    operator: str
    shape: tuple[int, ...]
    kept: int
    form: str
    size_bytes: int

    @property
    def sparsity(self) -> float:
        """Share of zeros, 0 to 1."""
        return 1 - self.kept / int(np.prod(self.shape))


@dataclass(frozen=True)
class SparseModel:
    """A rewritten .tflite and what became of each of its weight tensors."""

    data: bytes
    tensors: tuple[StoredTensor, ...]

    @property
    def kept(self) -> int:
        """Weights that are not zero, in all tensors together."""
        return sum(tensor.kept for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """What all weight tensors take in the file; the rest is the graph, biases included."""
        return sum(tensor.size_bytes for tensor in self.tensors)


def make_sparse(data: bytes, *, one_row: bool) -> SparseModel:
    """Rewrite the zeros of a .tflite.

    Args:
        data: As the converter wrote it: one subgraph, dense float32 weights.
        one_row: Whether its FULLY_CONNECTED operators see one row at a time, as in `step`. With many rows the sparse
            kernel loses to the dense one, and the weight is only stored sparse.

    Raises:
        ExportError: If the model has more than one subgraph.
    """
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    if len(model.subgraphs) != 1:
        raise ExportError("only models with one subgraph can be made sparse", found=f"{len(model.subgraphs)} subgraphs")
    graph = model.subgraphs[0]
    stored, densified = [], []
    for index, weight, operators in list(_weights(model)):
        form = _form(index, weight, operators, one_row=one_row)
        names = sorted({_operator_name(model, operator) for operator in operators})
        size = weight.nbytes
        if form == "csr_float32":
            size = _store_csr(model, graph.tensors[index], weight)
            for operator in operators:
                code = model.operatorCodes[operator.opcodeIndex]
                code.version = max(code.version, SPARSE_FULLY_CONNECTED_VERSION)
        elif form == "densify_float32":
            size = _store_csr(model, graph.tensors[index], weight)
            densified.append((index, operators))
        stored.append(StoredTensor("+".join(names), weight.shape, int(np.count_nonzero(weight)), form, size))
    for index, operators in densified:
        _insert_densify(model, index, operators)
    return SparseModel(pack(model), tuple(stored))


def pack(model: Any) -> bytes:
    """A schema object back to the bytes of a .tflite."""
    builder = _Builder(1 << 20)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # the package has no types
    """Aligns vectors of bytes as the schema demands; the schema's Python classes do not."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        """See the base; called for every vector."""
        start: int = super().StartVector(elemSize, numElems, BYTES_ALIGNMENT if elemSize == 1 else alignment)
        return start


def _weights(model: Any) -> Iterator[tuple[int, npt.NDArray[np.float32], list[Any]]]:
    """Constant float32 matrices and filters: tensor index, values, and the operators that use them."""
    graph = model.subgraphs[0]
    for index, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or data is None or len(data) == 0 or len(tensor.shape) < 2:
            continue
        users = [operator for operator in graph.operators if index in list(operator.inputs)]
        if users and index not in list(graph.outputs):
            yield index, np.frombuffer(bytes(data), np.float32).reshape(tensor.shape), users


def _form(index: int, weight: npt.NDArray[np.float32], operators: list[Any], *, one_row: bool) -> str:
    sparsity = 1 - np.count_nonzero(weight) / weight.size
    if weight.ndim != 2 or weight.size < SMALLEST or sparsity < DENSIFY_PAYS:
        return "dense_float32"
    multiplied = all(
        isinstance(operator.builtinOptions, schema.FullyConnectedOptionsT)
        and [place for place, used in enumerate(operator.inputs) if used == index] == [WEIGHT_INPUT]
        for operator in operators
    )
    return "csr_float32" if one_row and multiplied and sparsity >= SPARSE_KERNEL_PAYS else "densify_float32"


def _store_csr(model: Any, tensor: Any, weight: npt.NDArray[np.float32]) -> int:
    """Replace a dense matrix (rows, columns) by its kept values; returns the bytes it takes."""
    rows, columns = weight.shape
    kept = weight != 0
    if not kept.any():
        kept[0, 0] = True  # runtimes read past the end of a tensor without values; one stored zero is safe
    pointers = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    indices = np.nonzero(kept)[1]
    values = weight[kept]

    dense = schema.DimensionMetadataT()
    dense.format, dense.denseSize = schema.DimensionType.DENSE, rows
    compressed = schema.DimensionMetadataT()
    compressed.format = schema.DimensionType.SPARSE_CSR
    compressed.arraySegmentsType = schema.SparseIndexVector.Int32Vector
    compressed.arraySegments = schema.Int32VectorT()
    compressed.arraySegments.values = pointers
    kind, vector, dtype = _index_vector(columns)
    compressed.arrayIndicesType, compressed.arrayIndices = kind, vector
    compressed.arrayIndices.values = indices.astype(dtype)

    tensor.sparsity = schema.SparsityParametersT()
    tensor.sparsity.traversalOrder = [0, 1]
    tensor.sparsity.dimMetadata = [dense, compressed]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)  # a buffer of its own: another tensor may share the old one
    tensor.buffer = len(model.buffers) - 1
    _forget_unused_buffers(model)
    return int(values.nbytes + pointers.nbytes + indices.size * np.dtype(dtype).itemsize)


def _index_vector(columns: int) -> tuple[int, Any, type[np.integer[Any]]]:
    """The narrowest index type that reaches every column."""
    if columns <= 1 << 8:
        return schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT(), np.uint8
    if columns <= 1 << 16:
        return schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT(), np.uint16
    return schema.SparseIndexVector.Int32Vector, schema.Int32VectorT(), np.int32


def _forget_unused_buffers(model: Any) -> None:
    """Empty the buffers that no tensor and no metadata refers to any more."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None


def _insert_densify(model: Any, index: int, operators: list[Any]) -> None:
    """Put a DENSIFY between a sparse constant and the operators that use it."""
    graph = model.subgraphs[0]
    source = graph.tensors[index]
    expanded = schema.TensorT()
    expanded.shape, expanded.type = source.shape, source.type
    expanded.buffer = 0  # by convention the empty buffer
    expanded.name = (source.name or b"weight") + b"_dense"
    graph.tensors.append(expanded)
    operator = schema.OperatorT()
    operator.opcodeIndex = _operator_code(model, schema.BuiltinOperator.DENSIFY)
    operator.inputs, operator.outputs = [index], [len(graph.tensors) - 1]
    operator.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
    operator.builtinOptions = schema.DensifyOptionsT()
    for user in operators:
        user.inputs = [len(graph.tensors) - 1 if i == index else i for i in user.inputs]
    graph.operators.insert(0, operator)


def _operator_code(model: Any, builtin: int) -> int:
    """The index of a builtin operator's code, added if it is not there."""
    for number, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            return number
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _operator_name(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex].builtinCode
    return next(str(name) for name, value in vars(schema.BuiltinOperator).items() if value == code)
