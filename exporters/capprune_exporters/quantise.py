"""Quantisation of weights: int8 with a scale, or a codebook of sixteen values.

Zeros stay zero in every form, so that a mask is preserved. All values are symmetric around zero, as the int8 kernels
require.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from capprune_exporters.weight_forms import Weights

LARGEST_CODE = 127  # -128 is not used: kernels multiply pairs in 16 bits, where two products of -128 overflow
CODEBOOK_SIZE = 16
LLOYD_ROUNDS = 100  # one-dimensional k-means converges long before

_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)  # runtimes may flush smaller numbers to zero

Floats = NDArray[np.float32]


def int8_per_tensor(dense: Floats) -> tuple[NDArray[np.int8], np.float32]:
    """Return codes of the shape of `dense`, -127 to 127, and one scale: `scale * codes` approximates `dense`.

    An all-zero tensor gets zero codes and an arbitrary positive scale.
    """
    scale = _scales(np.abs(dense).max(initial=0))
    return _codes(dense, scale), np.float32(scale)


def int8_per_row(dense: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return codes `(N, K)` and a scale for each row `(N,)`; see `int8_per_tensor`."""
    scales = _scales(np.abs(dense).max(axis=1, initial=0))
    return _codes(dense, scales[:, np.newaxis]), scales


def codebook(dense: Floats, size: int = CODEBOOK_SIZE) -> tuple[NDArray[np.uint8], Floats]:
    """Return the `size` values nearest to the non-zero weights, by k-means.

    Negative and positive weights have separate clusters, in proportion to their numbers. So no value is zero, except
    for a matrix of zeros.

    Args:
        dense: Weights of any shape, finite.
        size: Largest number of values, 2 to 256.

    Returns:
        Codes of the shape of `dense`, undefined where a weight is zero, and the values in ascending order. If there are
        at most `size` distinct weights, the values equal them.
    """
    kept = np.sort(dense[dense != 0])
    distinct = np.unique(kept)
    values = distinct if distinct.size <= size else _clusters(kept, size)
    if values.size == 0:
        return np.zeros(dense.shape, np.uint8), np.zeros(1, np.float32)  # tables are never empty
    return np.searchsorted(_borders(values), dense).astype(np.uint8), values


def requantised(dense: Floats, weights: str) -> Floats:
    """Return the float32 matrix that a file with quantised weights represents, `(N, K)`.

    Args:
        dense: The weights, with zeros for pruned ones.
        weights: `float32` (unchanged), `int8` (`np.float32(scale) * code`, one scale) or `codebook4`.

    Raises:
        ValueError: There is no such quantisation.
    """
    if weights == Weights.FLOAT32:
        return dense
    if weights == Weights.INT8:
        small, scale = int8_per_tensor(dense)
        return scale * small.astype(np.float32)
    if weights == Weights.CODEBOOK4:
        codes, values = codebook(dense)
        return np.where(dense != 0, values[codes], np.float32(0))
    raise ValueError(f"weights can be {', '.join(Weights)}, not {weights}")


def _scales(largest: NDArray[np.float32]) -> Floats:
    scales = np.asarray(largest / np.float32(LARGEST_CODE), np.float32)
    positive: Floats = np.where(largest > 0, np.maximum(scales, np.float32(_SMALLEST_SCALE)), np.float32(1))
    return positive


def _codes(dense: Floats, scales: Floats) -> NDArray[np.int8]:
    codes: NDArray[np.int8] = np.clip(np.rint(dense / scales), -LARGEST_CODE, LARGEST_CODE).astype(np.int8)
    return codes


def _clusters(kept: Floats, size: int) -> Floats:
    """Return the means of `size` clusters of sorted values, none of which contains both signs."""
    negative, positive = kept[kept < 0], kept[kept > 0]
    share = round(size * negative.size / kept.size)
    for_negative = min(max(share, int(negative.size > 0)), size - int(positive.size > 0))
    return np.concatenate([_lloyd(negative, for_negative), _lloyd(positive, size - for_negative)])


def _lloyd(ordered: Floats, size: int) -> Floats:
    """Run k-means on sorted values, whose clusters are contiguous."""
    if ordered.size == 0:
        return ordered
    exact = ordered.astype(np.float64)
    centres: Floats = np.unique(ordered[((np.arange(size) + 0.5) * ordered.size / size).astype(int)])
    for _ in range(LLOYD_ROUNDS):
        starts = np.concatenate([[0], np.searchsorted(ordered, _borders(centres), side="right")])
        starts = np.unique(starts[starts < ordered.size])  # drops empty clusters
        sizes = np.diff(starts, append=ordered.size)
        means: Floats = (np.add.reduceat(exact, starts) / sizes).astype(np.float32)
        if np.array_equal(means, centres):
            break
        centres = np.unique(means)
    return centres


def _borders(values: Floats) -> Floats:
    """Return the midpoints between neighbours; a weight is assigned to the nearer value."""
    borders: Floats = (values[1:] + values[:-1]) / np.float32(2)
    return borders
