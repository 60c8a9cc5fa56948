"""The storage forms that benchmarks compare, each made from one step of a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from capprune.models.exportable import StepCall
from capprune.models.family import IN_STEP
from capprune_exporters.plan import in_blocks
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.sparse import make_sparse

BLOCK = 16
IN_BLOCKS = "block_1x16_int8"  # for weights pruned in blocks
# the FULLY_CONNECTED operators of a step
MULTIPLIED = ("query.weight", "rnn.weight", "candidate.weight", "output.weight")
LOOKED_UP = "embedding.weight"


@dataclass(frozen=True)
class Converted:
    """A step in torch, its dense float32 file from the converter, and its matrices by name."""

    step: StepCall
    data: bytes
    matrices: Mapping[str, NDArray[np.float32]]

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(matrix.size for matrix in self.matrices.values())

    @property
    def kept(self) -> int:
        """Number of weights that are not zero."""
        return sum(int(np.count_nonzero(matrix)) for matrix in self.matrices.values())

    @property
    def blocked(self) -> tuple[str, ...]:
        """The multiplied matrices that keep their weights in whole blocks."""
        return tuple(name for name in MULTIPLIED if name in self.matrices and in_blocks(self.matrices[name]))


@dataclass(frozen=True)
class Stored:
    """A model file; for a sparse one also the number and size of its kept weights."""

    data: bytes
    kept: int | None = None
    weight_bytes: int | None = None


def _planned(model: Converted, multiplied: str, looked_up: str, *, sparse: bool) -> Stored:
    """Store matrices in one form where it fits and the embedding in another; others follow the fixed rule."""
    names = model.blocked if multiplied == IN_BLOCKS else [name for name in MULTIPLIED if name in model.matrices]
    plan = {**dict.fromkeys(names, multiplied), LOOKED_UP: looked_up}
    made = make_sparse(model.data, one_row=True, plan=plan, names=model.matrices)
    return Stored(made.data, made.kept, made.weight_bytes) if sparse else Stored(made.data)


def _by_rule(model: Converted) -> Stored:
    made = make_sparse(model.data, one_row=True, names=model.matrices)
    return Stored(made.data, made.kept, made.weight_bytes)


def converted(step: StepCall) -> Converted:
    """Convert a step."""
    matrices = {name: value.numpy() for name, value in step.decoder.matrices(*IN_STEP).items()}
    return Converted(step, convert(step, "step", step.example()), matrices)


# All formats in one table: name, and how it is made from the converter's file. Dense int8 has one scale per matrix. It
# is as fast as ai-edge-quantizer's scale per row, and correct in every runtime.
FORMATS: dict[str, Callable[[Converted], Stored]] = {
    "dense_float32": lambda model: Stored(model.data),
    "dense_int8": partial(_planned, multiplied="dense_int8", looked_up="dense_int8", sparse=False),
    "csr_float32": _by_rule,
    IN_BLOCKS: partial(_planned, multiplied=IN_BLOCKS, looked_up="densify_int8", sparse=True),
}
