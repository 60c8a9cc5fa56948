"""Rewrite the weights of a finished .tflite in the forms that the stock runtimes execute.

litert-torch writes pruned weights as dense tensors full of zeros. Here each constant float32 matrix gets its form from
a plan (see `forms`). Without one, a fixed rule stores matrices with enough zeros as

* CSR, for the weight of a FULLY_CONNECTED in a one-row graph, for which the runtime has a kernel;
* CSR behind a DENSIFY otherwise, and for filters of convolutions: small in the file, expanded once at load, as fast as
  dense weights. `read_sparse` takes the DENSIFY away again where the kernel is as fast for several rows, which saves the
  memory of the dense weight and of its packed copy.

Forms that runtimes accept but compute wrongly are never written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from capprune_exporters.stored import SparseModel, StoredTensor
from capprune_exporters.tflite.forms import DENSIFIED, check_form, encoded, store
from capprune_exporters.tflite.graph import (
    BYTES_ALIGNMENT,
    add_computed,
    add_metadata,
    forget_unused_buffers,
    new_operator,
    operator_name,
    pack,
    set_version,
    unpack,
)
from capprune_runtime.errors import ExportError

__all__ = ["BYTES_ALIGNMENT", "add_metadata", "make_sparse", "pack"]

FOLDING_ERROR = 1e-5  # relative: two float32 roundings, plus a margin
SMALLEST = 4096  # weights; for smaller matrices row pointers and one more operator cost more than the zeros
SPARSE_KERNEL_PAYS = 0.9  # sparsity from which CSR is about as fast as dense float32; below it CSR only saves space
SPARSE_ROWS_PAY = 0.95  # the same for a product of several rows, measured with 16 to 100
DENSIFY_PAYS = 0.5  # sparsity from which 6 bytes per kept weight are clearly fewer than 4 bytes per weight
WEIGHT_INPUT = 1  # of FULLY_CONNECTED; the kernel supports sparse values only in this input
FILTERS = (("CONV_2D", 1), ("DEPTHWISE_CONV_2D", 1))  # the only weights of more than two dimensions that are expanded

# Operator versions for these weights. With any other version, runtimes silently read sparse weights as dense.
SPARSE_FULLY_CONNECTED_VERSION = 8
HYBRID_FULLY_CONNECTED_VERSION = 3
HYBRID_EMBEDDING_LOOKUP_VERSION = 2
INT8_DEQUANTIZE_VERSION = INT8_GATHER_VERSION = 2

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Weight:
    """A constant float32 tensor and the operators that use it."""

    index: int
    name: str
    values: Matrix
    users: tuple[Any, ...]


def make_sparse(
    data: bytes,
    *,
    one_row: bool,
    plan: Mapping[str, str] | None = None,
    weights: str | Mapping[str, str] = "float32",
    names: Mapping[str, Matrix] | None = None,
    filters: bool = True,
) -> SparseModel:
    """Rewrite the weights of a .tflite.

    Args:
        data: The converter's file: one subgraph, dense float32 weights.
        one_row: Whether its FULLY_CONNECTED operators take one row at a time, as in `step`. With many rows the sparse
            kernel is slower than the dense one, and the weight is only stored sparse.
        plan: Form of tensors by name; other tensors follow the fixed rule.
        weights: The values of tensors in sparse float32 forms: `float32`, `int8` or `codebook4` (those of
            `requantised`), for all of them or by tensor name. Other tensors keep float32. Tensors in `dense_float32`
            are not changed.
        names: Values by parameter name; the stored tensor with these values gets the name.
        filters: Whether filters of convolutions are stored sparse too, by the fixed rule.

    Raises:
        ExportError: The model has more than one subgraph, or the plan names a missing tensor, a form that does not fit
            it, or a form that computes wrongly.
    """
    model = unpack(data)
    _rename(model, names or {})
    wanted = dict(plan or {})
    stored, densified = [], []
    for weight in list(_weights(model)):
        rule = _form(model, weight, one_row=one_row) if filters or weight.values.ndim == 2 else "dense_float32"
        form = wanted.pop(weight.name, rule)
        quantised = weights if isinstance(weights, str) else weights.get(weight.name, "float32")
        stored.append(_rewrite(model, weight, form, quantised))
        if form in DENSIFIED:
            densified.append(weight)
    if wanted:
        found = ", ".join(tensor.name for tensor in stored)
        raise ExportError("the plan names a tensor that does not exist", where=min(wanted), expected=found)
    for weight in densified:
        _insert_densify(model, weight)
    forget_unused_buffers(model)
    return SparseModel(pack(model), tuple(stored))


def read_sparse(data: bytes) -> bytes:
    """Let FULLY_CONNECTED read float32 weights behind a DENSIFY as they are stored, where its sparse kernel is as fast.

    It comes after quantization, because the quantizer does not support sparse weights.

    Args:
        data: A .tflite made by `make_sparse`, quantized or not.
    """
    model = unpack(data)
    graph = model.subgraphs[0]
    for densify in [one for one in graph.operators if operator_name(model, one) == "DENSIFY"]:
        (stored,), (dense,) = densify.inputs, densify.outputs
        users = [one for one in graph.operators if dense in list(one.inputs)]
        if users and all(_as_fast_sparse(model, user, stored, dense) for user in users):
            for user in users:
                _read_instead(user, dense, stored)
                _let_read(model, user, "csr_float32")
            graph.operators.remove(densify)
    return pack(model)


def _as_fast_sparse(model: Any, user: Any, stored: int, dense: int) -> bool:
    """Return whether an operator is a product whose sparse kernel is about as fast as the dense one."""
    tensors = model.subgraphs[0].tensors
    weight = tensors[stored]
    if weight.type != schema.TensorType.FLOAT32 or operator_name(model, user) != "FULLY_CONNECTED":
        return False
    if [place for place, used in enumerate(user.inputs) if used == dense] != [WEIGHT_INPUT]:
        return False
    kept = len(model.buffers[weight.buffer].data) // np.dtype(np.float32).itemsize
    rows = int(np.prod(tensors[user.inputs[0]].shape[:-1]))
    return 1 - kept / int(np.prod(weight.shape)) >= (SPARSE_KERNEL_PAYS if rows == 1 else SPARSE_ROWS_PAY)


def stored_names(data: bytes, names: Mapping[str, Matrix]) -> frozenset[str]:
    """Return the names of the parameters that a converted model stores.

    Converters fold products with zeros. If a layer has no weight left, parameters that only it reads are removed too.

    Args:
        data: The converter's file.
        names: Values by parameter name.
    """
    model = unpack(data)
    _rename(model, names)
    return frozenset(weight.name for weight in _weights(model)) & names.keys()


def _rename(model: Any, names: Mapping[str, Matrix]) -> None:
    """Give stored tensors the names of the parameters with their values; each tensor gets one name.

    Converters fold batch norms into filters, which rounds them.
    """
    unnamed = [(tensor, values) for tensor, values in _constants(model) if tensor.type == schema.TensorType.FLOAT32]
    for name, expected in names.items():
        for place, (tensor, values) in enumerate(unnamed):
            if (
                values.size == expected.size
                and _same_shape(tensor, expected)
                and np.allclose(values, expected.ravel(), rtol=FOLDING_ERROR, atol=0)
            ):
                tensor.name = name.encode()
                del unnamed[place]
                break


def _same_shape(tensor: Any, expected: Matrix) -> bool:
    """Return whether the shapes are equal, ignoring the sizes of 1 that converters add."""
    return [size for size in tensor.shape if size != 1] == [size for size in expected.shape if size != 1]


def _constants(model: Any) -> Iterator[tuple[Any, Matrix]]:
    """Yield the stored float32 tensors and their flat values."""
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.FLOAT32 and data is not None and len(data):
            yield tensor, np.frombuffer(bytes(data), np.float32)


def _weights(model: Any) -> Iterator[_Weight]:
    """Return the constant float32 matrices and filters that operators use."""
    graph = model.subgraphs[0]
    stored = {id(tensor): values for tensor, values in _constants(model)}
    for index, tensor in enumerate(graph.tensors):
        if id(tensor) not in stored or len(tensor.shape) < 2:
            continue
        users = tuple(operator for operator in graph.operators if index in list(operator.inputs))
        if users and index not in list(graph.outputs):
            yield _Weight(index, _name(tensor), stored[id(tensor)].reshape(tensor.shape), users)


def _name(tensor: Any) -> str:
    name = tensor.name or b""
    return name if isinstance(name, str) else name.decode()


def _form(model: Any, weight: _Weight, *, one_row: bool) -> str:
    """Return the form by the fixed rule."""
    sparsity = 1 - np.count_nonzero(weight.values) / weight.values.size
    if weight.values.size < SMALLEST or sparsity < DENSIFY_PAYS:
        return "dense_float32"
    multiplied = all(use == ("FULLY_CONNECTED", WEIGHT_INPUT) for use in _uses(model, weight))
    if weight.values.ndim != 2 and not all(use in FILTERS for use in _uses(model, weight)):
        return "dense_float32"
    return "csr_float32" if one_row and multiplied and sparsity >= SPARSE_KERNEL_PAYS else "densify_float32"


def _uses(model: Any, weight: _Weight) -> list[tuple[str, int]]:
    """Return every use of a weight: the operator and the position among its inputs."""
    return [
        (operator_name(model, operator), place)
        for operator in weight.users
        for place, used in enumerate(operator.inputs)
        if used == weight.index
    ]


def _rewrite(model: Any, weight: _Weight, form: str, quantised: str) -> StoredTensor:
    uses = _uses(model, weight)
    check_form(form, weight.values, uses, weight.name)
    operator, shape = "+".join(sorted({name for name, _ in uses})), weight.values.shape
    if form == "dense_float32":
        kept = int(np.count_nonzero(weight.values))
        return StoredTensor(operator, shape, kept, form, weight.values.nbytes, weight.name)
    content = encoded(form, weight.values, quantised)
    size = store(model, model.subgraphs[0].tensors[weight.index], content)
    if form not in DENSIFIED:
        for user in weight.users:
            _let_read(model, user, form)
    return StoredTensor(operator, shape, content.kept, form, size, weight.name)


def _let_read(model: Any, operator: Any, form: str) -> None:
    """Set the version and options of an operator for the form of its weight."""
    if operator_name(model, operator) == "EMBEDDING_LOOKUP":
        set_version(model, operator, HYBRID_EMBEDDING_LOOKUP_VERSION)
        return
    hybrid = form == "dense_int8"
    set_version(model, operator, HYBRID_FULLY_CONNECTED_VERSION if hybrid else SPARSE_FULLY_CONNECTED_VERSION)
    operator.builtinOptions.asymmetricQuantizeInputs = False


def _insert_densify(model: Any, weight: _Weight) -> None:
    """Insert a DENSIFY, and for int8 a DEQUANTIZE, between a sparse constant and the operators that use it.

    Rows of int8 are looked up first and dequantised afterwards. With a whole table, runtimes would dequantise all of it
    in every step, or read uninitialised memory.
    """
    graph = model.subgraphs[0]
    source = graph.tensors[weight.index]
    expanded = add_computed(model, source, b"_dense", source.type)
    graph.tensors[expanded].quantization = source.quantization
    added = [new_operator(model, schema.BuiltinOperator.DENSIFY, [weight.index], [expanded])]
    multiplied = []
    for user in weight.users:
        name = operator_name(model, user)
        _read_instead(user, weight.index, expanded)
        if source.type == schema.TensorType.INT8:
            if name == "EMBEDDING_LOOKUP":
                set_version(model, user, HYBRID_EMBEDDING_LOOKUP_VERSION)
            elif name == "GATHER":
                _dequantise_gathered(model, user, source.quantization)
            else:
                multiplied.append(user)
    if multiplied:
        whole = add_computed(model, source, b"_float", schema.TensorType.FLOAT32)
        added.append(_dequantize(model, expanded, whole))
        for user in multiplied:
            _read_instead(user, expanded, whole)
    graph.operators[:0] = added


def _dequantise_gathered(model: Any, gather: Any, quantisation: Any) -> None:
    """Change the output of a GATHER to int8, with a DEQUANTIZE behind it for the original output."""
    graph = model.subgraphs[0]
    (before,) = gather.outputs
    codes = add_computed(model, graph.tensors[before], b"_int8", schema.TensorType.INT8)
    graph.tensors[codes].quantization = quantisation
    gather.outputs = [codes]
    set_version(model, gather, INT8_GATHER_VERSION)
    graph.operators.insert(graph.operators.index(gather) + 1, _dequantize(model, codes, before))


def _dequantize(model: Any, codes: int, floats: int) -> Any:
    return new_operator(model, schema.BuiltinOperator.DEQUANTIZE, [codes], [floats], INT8_DEQUANTIZE_VERSION)


def _read_instead(operator: Any, before: int, now: int) -> None:
    operator.inputs = [now if used == before else used for used in operator.inputs]
