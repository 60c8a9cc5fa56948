"""Checks for the sparse tensors that stock runtimes compute correctly, but do not check themselves.

Accepted, for a weight of shape (N, K):

    name          values   levels                                        traversal   block map
    CSR           float32  dense N, compressed K                         0 1         -
    CSR           int8     the same, for DENSIFY only                    0 1         -
    1×4 blocks    float32  dense N, compressed K / 4, dense 4            0 1 2       1
    1×16 blocks   int8     dense N, compressed K / 16, dense 16          0 1 2       1

and CSR with more dense levels in front, for DENSIFY. Row pointers (`segments`) and column indices (`indices`) belong to
the compressed level.
"""

from __future__ import annotations

from math import prod

import numpy as np

from capprune_runtime.tflite.file import Indices, Operator, SparseDimension, Sparsity, Tensor, TfliteModel
from capprune_runtime.tflite.quantisation import Fault

# Of FULLY_CONNECTED. With any other, the runtimes' delegate takes the operator and reads past the end of the kept
# values.
SPARSE_VERSION = 8

# Values per block, by type of the values; without blocks, float32 only.
_BLOCKS = {"float32": 4, "int8": 16}
# The 1×16 kernel stores a row's count and columns in bytes.
_LEDGER_LIMIT = 255

Broken = tuple[str, object, object]


def check_sparse_tensor(tensor: Tensor, stored_bytes: int) -> Broken | None:
    """Check one sparse tensor against the accepted forms.

    Args:
        tensor: A tensor that has `sparsity`; its shape is already known to be possible.
        stored_bytes: Size of its stored values.

    Returns:
        None, or (rule, expected, found) of the first rule that it breaks.
    """
    sparsity = tensor.sparsity
    if sparsity is None:
        return None
    if broken := _check_form(tensor, sparsity):
        return broken
    block = _block_size(sparsity)
    compressed = next(level for level in sparsity.dimensions if level.compressed)
    rows, columns = prod(tensor.shape[:-1]), tensor.shape[-1] // block
    if broken := _check_positions(compressed, rows, columns):
        return broken
    kept = len(compressed.indices)
    if kept == 0:
        return ("sparsity: nothing is kept, and runtimes then read memory that is not theirs", "one kept value", 0)
    expected_bytes = kept * block * np.dtype(tensor.dtype).itemsize
    if stored_bytes != expected_bytes:
        return ("sparsity: the values are not as many as the indices", f"{expected_bytes} bytes", stored_bytes)
    if block == _BLOCKS["int8"]:
        return _check_ledger(compressed, columns)
    return None


def _check_form(tensor: Tensor, sparsity: Sparsity) -> Broken | None:
    levels = sparsity.dimensions
    rank = len(tensor.shape)
    blocks = len(sparsity.block_map)
    if rank < 2 or len(levels) != rank + blocks or blocks > 1:
        return ("sparsity: the levels do not fit the shape", f"{rank} levels, or {rank + 1} with blocks", len(levels))
    if sparsity.traversal_order != tuple(range(len(levels))):
        return ("sparsity: traversal order", tuple(range(len(levels))), sparsity.traversal_order)
    if [level.compressed for level in levels] != [False] * (rank - 1) + [True] + [False] * blocks:
        return ("sparsity: the last dimension, and only that, must be compressed", None, None)
    for axis, level in enumerate(levels[: rank - 1]):
        if level.dense_size != tensor.shape[axis]:
            return (f"sparsity: size of level {axis}", tensor.shape[axis], level.dense_size)
    if blocks:
        return _check_blocks(tensor, sparsity)
    if tensor.dtype not in _BLOCKS:
        return ("sparsity: no stock runtime has a kernel for these values", "float32 or int8", tensor.dtype)
    return _check_scale(tensor)


def _check_scale(tensor: Tensor) -> Broken | None:
    """Check that an int8 tensor has zero point 0, because missing values are 0, and one scale."""
    quantisation = tensor.quantisation
    if tensor.dtype != "int8" or (
        quantisation is not None and quantisation.scales.size == 1 and not quantisation.zero_points.any()
    ):
        return None
    return (
        "sparsity: sparse int8 with anything but one scale and zero point 0, "
        "which stock runtimes compute wrongly without a word",
        "one scale, zero point 0",
        "no scale" if quantisation is None else f"{quantisation.scales.size} scales",
    )


def _check_blocks(tensor: Tensor, sparsity: Sparsity) -> Broken | None:
    size = _block_size(sparsity)
    if len(tensor.shape) != 2 or sparsity.block_map != (1,):
        return ("sparsity: blocks must lie along the second of two dimensions", (1,), sparsity.block_map)
    if _BLOCKS.get(tensor.dtype) != size:
        return (
            "sparsity: no stock runtime has a right kernel for these blocks",
            "1×4 float32 or 1×16 int8",
            f"1×{size} {tensor.dtype}",
        )
    if tensor.shape[1] % size:
        return ("sparsity: the blocks do not fill the rows", f"a multiple of {size}", tensor.shape[1])
    return _check_scale(tensor)


def _block_size(sparsity: Sparsity) -> int:
    return sparsity.dimensions[-1].dense_size if sparsity.block_map else 1


def _check_positions(level: SparseDimension, rows: int, columns: int) -> Broken | None:
    segments, indices = level.segments, level.indices
    if len(segments) != rows + 1:
        return ("sparsity: number of row pointers", rows + 1, len(segments))
    if segments[0] != 0:
        return ("sparsity: the first row pointer", 0, int(segments[0]))
    falls = segments[1:] < segments[:-1]  # not a difference, because the numbers may be unsigned
    if falls.any():
        return ("sparsity: a row pointer decreases", None, f"after row {int(falls.argmax())}")
    if segments[-1] != len(indices):
        return ("sparsity: the last row pointer", f"{len(indices)}, the number of indices", int(segments[-1]))
    outside = (indices < 0) | (indices >= columns)
    if outside.any():
        place = int(outside.argmax())
        return ("sparsity: a column index is out of range", f"0 to {columns - 1}", f"{int(indices[place])} at {place}")
    unsorted = _first_unsorted(segments, indices)
    if unsorted is not None:
        return ("sparsity: the columns of a row must rise", None, f"{int(indices[unsorted])} at {unsorted}")
    return None


def _first_unsorted(segments: Indices, indices: Indices) -> int | None:
    """Return the first position whose index is not larger than the one before it in the same row."""
    wrong = indices[1:] <= indices[:-1]
    starts = segments[(segments > 0) & (segments < len(indices))].astype(np.intp)
    wrong[starts - 1] = False
    return int(wrong.argmax()) + 1 if wrong.any() else None


def _check_ledger(level: SparseDimension, columns: int) -> Broken | None:
    if columns - 1 > _LEDGER_LIMIT:
        return ("sparsity: 1×16 blocks in rows that are too long", f"at most {(_LEDGER_LIMIT + 1) * 16}", columns * 16)
    counts = np.diff(level.segments.astype(np.int64))
    if counts.max() > _LEDGER_LIMIT:
        return ("sparsity: too many 1×16 blocks in a row", f"at most {_LEDGER_LIMIT}", int(counts.max()))
    return None


def sparse_weight_fault(model: TfliteModel, operator: Operator) -> Fault | None:
    """Return the fault of a FULLY_CONNECTED with a sparse weight; None if there is none."""
    source, weight = (model.tensors[index] for index in operator.inputs[:2])
    if len(weight.shape) != 2:
        return Fault("sparsity: a sparse weight must have two dimensions", weight, None, weight.shape)
    if source.dtype != "float32":
        return Fault("sparsity: a sparse weight needs float32 inputs", source, "float32", source.dtype)
    if operator.version != SPARSE_VERSION:
        return Fault(
            f"operator {operator.index} (FULLY_CONNECTED): of this version, stock runtimes read the sparse weight as a dense one",
            weight,
            f"version {SPARSE_VERSION}",
            operator.version,
        )
    if weight.dtype == "int8" and weight.sparsity is not None and not weight.sparsity.block_map:
        return Fault(
            "sparsity: int8 values without blocks, which stock runtimes compute wrongly without a word",
            weight,
            "float32 values, or int8 in 1×16 blocks, or int8 behind DENSIFY",
        )
    return None


def densified_fault(model: TfliteModel) -> Fault | None:
    """Return the fault of an int8 DENSIFY whose use stock runtimes do not compute correctly; None if there is none.

    Runtimes expand the weights of their delegate once, ahead of time, and then skip the DENSIFY. A following DEQUANTIZE
    stays outside the delegate if its own user does. It then reads uninitialised memory.
    """
    users: dict[int, list[tuple[Operator, int]]] = {}
    for operator in model.operators:
        for position, index in enumerate(operator.inputs):
            users.setdefault(index, []).append((operator, position))
    for operator in model.operators:
        tensor = model.tensors[operator.outputs[0]]
        if operator.name != "DENSIFY" or tensor.dtype != "int8":
            continue
        for user, position in users.get(tensor.index, ()):
            if (user.name, position) in (("EMBEDDING_LOOKUP", 1), ("GATHER", 0)):
                continue
            behind = users.get(user.outputs[0], ())
            handed_out = user.outputs[0] in model.outputs
            if user.name != "DEQUANTIZE" or handed_out or not all(_delegated(model, other, at) for other, at in behind):
                return Fault(
                    "sparsity: int8 from DENSIFY, where stock runtimes read memory that nothing has written",
                    tensor,
                    "EMBEDDING_LOOKUP, GATHER, or DEQUANTIZE to the weight of FULLY_CONNECTED, "
                    f"not of version {SPARSE_VERSION}, with a stored bias of one dimension or none",
                    f"operator {user.index} ({user.name})",
                )
    return None


def _delegated(model: TfliteModel, user: Operator, position: int) -> bool:
    """Return whether every runtime's delegate takes a user of dequantised weights."""
    if (user.name, position) != ("FULLY_CONNECTED", 1) or user.version == SPARSE_VERSION:
        return False
    biases = [model.tensors[index] for index in user.inputs[2:] if index >= 0]
    return all(model.is_constant(bias) and len(bias.shape) == 1 for bias in biases)
