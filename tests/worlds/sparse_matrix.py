"""Random matrices whose weights are kept singly or in blocks."""

from __future__ import annotations

import numpy as np

from capprune_exporters.plan import Matrix


def sparse_matrix(rows: int, columns: int, sparsity: float, block: int = 1) -> Matrix:
    """Return a matrix with a share of zeros; blocks are neighbours in a row. The number of rows is the seed."""
    draw = np.random.default_rng(rows)
    kept = np.repeat(draw.random((rows, columns // block)) >= sparsity, block, axis=1)
    return (draw.standard_normal((rows, columns)) * kept).astype(np.float32)
