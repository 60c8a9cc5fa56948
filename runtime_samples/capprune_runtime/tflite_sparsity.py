"""The sparse tensors that stock runtimes compute rightly, and the checks they do not make themselves.

Accepted, for a weight of shape (N, K):

    name          values   levels                                        traversal   block map
    CSR           float32  dense N, compressed K                         0 1         -
    1×4 blocks    float32  dense N, compressed K / 4, dense 4            0 1 2       1
    1×16 blocks   int8     dense N, compressed K / 16, dense 16          0 1 2       1

and CSR float32 with more dense levels in front, for DENSIFY. Row pointers (`segments`) and column indices
(`indices`) stand at the compressed level.
"""

from __future__ import annotations

from math import prod

import numpy as np

from capprune_runtime.tflite_file import Indices, SparseDimension, Sparsity, Tensor

# Values of a block, by type of the values; without blocks, float32 only.
_BLOCKS = {"float32": 4, "int8": 16}
# The 1×16 kernel keeps a row's count and columns in bytes.
_LEDGER_LIMIT = 255

Broken = tuple[str, object, object]


def check_sparse_tensor(tensor: Tensor, stored_bytes: int) -> Broken | None:
    """Check one sparse tensor against the accepted forms.

    Args:
        tensor: A tensor that has `sparsity`; its shape is already known to be possible.
        stored_bytes: How many bytes of values the file holds for it.

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
    if tensor.dtype != "float32":
        return (
            f"sparsity: {tensor.dtype} values without blocks, which stock runtimes compute wrongly without a word",
            "float32 values, or int8 in 1×16 blocks",
            tensor.dtype,
        )
    return None


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
    if tensor.dtype != "int8":
        return None
    quantisation = tensor.quantisation
    if quantisation is None or quantisation.scales.size != 1 or quantisation.zero_points.any():
        return (
            "sparsity: 1×16 int8 blocks with anything but one scale and zero point 0, "
            "which stock runtimes compute wrongly without a word",
            "one scale, zero point 0",
            "no scale" if quantisation is None else f"{quantisation.scales.size} scales",
        )
    return None


def _block_size(sparsity: Sparsity) -> int:
    return sparsity.dimensions[-1].dense_size if sparsity.block_map else 1


def _check_positions(level: SparseDimension, rows: int, columns: int) -> Broken | None:
    segments, indices = level.segments, level.indices
    if len(segments) != rows + 1:
        return ("sparsity: number of row pointers", rows + 1, len(segments))
    if segments[0] != 0:
        return ("sparsity: the first row pointer", 0, int(segments[0]))
    falls = segments[1:] < segments[:-1]  # not a difference: the numbers may be unsigned
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
    """Where an index is not larger than the one before it in the same row."""
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
