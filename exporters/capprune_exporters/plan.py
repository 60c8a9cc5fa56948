"""The plan of an export: the storage form of every weight matrix of `step`, its cost, and the reason.

    form               runs as                                   size of a kept weight in the file
    dense_float32      XNNPACK, dense                            4 bytes, also for every zero
    csr_float32        the runtime's sparse kernel               6 bytes
    dense_int8         XNNPACK, dense, int8                      1 byte, also for every zero
    block_1x16_int8    the runtime's sparse block kernel         1 byte, plus 1 or 2 a block
    densify_float32    expanded once at load, then dense         6 bytes
    densify_int8       expanded once at load, then dense         3 bytes

A plan is made by a fixed rule on sizes, by measurement on this machine, or by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from capprune_exporters.tflite.forms import BLOCK, MOST_COLUMNS
from capprune_exporters.tflite.single import INPUT, SIGNATURE, WEIGHT, single_product
from capprune_exporters.tflite.sparse import DENSIFY_PAYS, SMALLEST, SPARSE_KERNEL_PAYS, make_sparse
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.errors import UsageError
from capprune_runtime.measure.interleaved import time_interleaved

Matrix = npt.NDArray[np.float32]

FILLED = 0.5  # share of kept weights in kept blocks from which a mask counts as block-sparse
EMPTY = 0.5  # share of empty blocks from which the block kernel is worth it; a dense matrix has none
AS_FAST = 1.1  # forms within 10 % of the fastest count as equally fast; then the smaller file wins
ROUNDS, CALLS = 15, 20


@dataclass(frozen=True)
class PlanLine:
    """Storage of one weight tensor.

    Attributes:
        tensor: The parameter's name.
        shape: (N, K).
        kept: Number of weights that are not zero.
        form: One of the table above.
        weights: Quantisation of its values: one of `Weights`.
        reason: The reason, in a few words.
        measured_us: Median time of one product by form, in microseconds; empty if not measured.
    """

    tensor: str
    shape: tuple[int, ...]
    kept: int
    form: str
    weights: str
    reason: str
    measured_us: Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """One line for every weight matrix of `step`.

    Attributes:
        weights: Requested quantisation: one of `Weights`. A line may fall back to float32.
        made: `size` for the fixed rule, `measured`, or `given`.
        lines: Lines in the order of the model.
    """

    weights: str
    made: str
    lines: tuple[PlanLine, ...]

    @property
    def forms(self) -> dict[str, str]:
        """Storage form of each tensor, by name."""
        return {line.tensor: line.form for line in self.lines}

    @property
    def quantised(self) -> dict[str, str]:
        """Quantisation of each tensor's values, by name."""
        return {line.tensor: line.weights for line in self.lines}

    def as_json(self) -> dict[str, Any]:
        """Return the content of plan.json."""
        return {"schema_version": 1, **asdict(self)}

    def as_stored(self, forms: Mapping[str, str]) -> Plan:
        """Return the plan with the forms in the file, where the target uses other forms."""
        lines = tuple(replace(line, form=forms.get(line.tensor, line.form)) for line in self.lines)
        return replace(self, lines=lines)

    def with_float(self, tensor: str, reason: str) -> Plan:
        """Return the plan with one tensor kept in float32."""
        lines = tuple(
            replace(line, form=_float_form(line), weights="float32", reason=reason) if line.tensor == tensor else line
            for line in self.lines
        )
        return replace(self, lines=lines)


def plan_by_size(matrices: Mapping[str, Matrix], looked_up: Sequence[str], weights: str) -> Plan:
    """Plan by a fixed rule: the smallest form that is at least about as fast as the dense one.

    Args:
        matrices: The masked weight matrices of `step`, (N, K), by name.
        looked_up: Names of the matrices that are looked up by row (embeddings), not multiplied.
        weights: One of `Weights`.
    """
    lines = [_by_rule(name, matrix, name in looked_up, weights) for name, matrix in matrices.items()]
    return Plan(weights, "size", tuple(lines))


def plan_by_measurement(matrices: Mapping[str, Matrix], looked_up: Sequence[str], weights: str) -> Plan:
    """Plan by measurement: the fastest form of each matrix on this machine with one thread.

    If two are about as fast, the smaller one.

    Args:
        matrices: See `plan_by_size`.
        looked_up: See `plan_by_size`. A row lookup costs the same in every form, so the fixed rule decides.
        weights: One of `Weights`.
    """
    lines = []
    for name, matrix in matrices.items():
        line = _by_rule(name, matrix, name in looked_up, weights)
        forms = candidates(matrix, weights)
        lines.append(line if name in looked_up or len(forms) == 1 else _measured(line, matrix, forms, weights))
    return Plan(weights, "measured", tuple(lines))


def plan_as_given(
    matrices: Mapping[str, Matrix], looked_up: Sequence[str], weights: str, given: Mapping[str, str]
) -> Plan:
    """Plan by the fixed rule, with given forms for some tensors.

    Raises:
        UsageError: A tensor or form is unknown, or the form does not fit `weights`.
    """
    plan = plan_by_size(matrices, looked_up, weights)
    if unknown := sorted(given.keys() - matrices.keys()):
        raise UsageError("a plan names an unknown tensor", where=unknown[0], expected=", ".join(matrices))
    for name, form in given.items():
        possible = _looked_up_forms(weights) if name in looked_up else candidates(matrices[name], weights)
        if form not in possible:
            raise UsageError("a tensor cannot be stored so", where=name, expected=", ".join(possible), found=form)
    lines = (
        replace(line, form=given[line.tensor], reason="as the plan says") if line.tensor in given else line
        for line in plan.lines
    )
    return Plan(weights, "given", tuple(lines))


def candidates(matrix: Matrix, weights: str) -> tuple[str, ...]:
    """Return the possible forms of a matrix that is multiplied."""
    if matrix.size < SMALLEST:
        return ("dense_float32",)
    if weights != "int8":
        return ("csr_float32", "densify_float32", "dense_float32")
    fits = matrix.shape[1] % BLOCK == 0 and matrix.shape[1] <= MOST_COLUMNS
    return ("csr_float32", "dense_int8", *(("block_1x16_int8",) if fits else ()), "dense_float32")


def in_blocks(matrix: Matrix) -> bool:
    """Return whether kept weights are in whole 1x16 blocks."""
    rows, columns = matrix.shape
    if columns % BLOCK or columns > MOST_COLUMNS:
        return False
    kept = matrix != 0
    blocks = kept.reshape(rows, -1, BLOCK).any(-1)
    return bool(kept.sum() >= FILLED * BLOCK * blocks.sum() > 0 and blocks.mean() <= 1 - EMPTY)


def _by_rule(name: str, matrix: Matrix, looked_up: bool, weights: str) -> PlanLine:
    kept = int(np.count_nonzero(matrix))
    sparsity = 1 - kept / matrix.size

    def line(form: str, reason: str) -> PlanLine:
        quantised = "float32" if form.startswith("dense_float") else weights
        return PlanLine(name, matrix.shape, kept, form, quantised, reason, {})

    if matrix.size < SMALLEST:
        return line("dense_float32", "too small to matter")
    if looked_up:
        if sparsity < DENSIFY_PAYS:
            return line("dense_float32", f"only {sparsity:.0%} zeros")
        return line(_looked_up_forms(weights)[0], "a row is looked up: small in the file, expanded at load")
    if weights == "int8" and in_blocks(matrix):
        return line("block_1x16_int8", "kept in whole blocks")
    if sparsity >= SPARSE_KERNEL_PAYS:
        return line("csr_float32", f"{sparsity:.1%} zeros: the sparse kernel pays")
    if weights == "int8":
        return line("dense_int8", f"only {sparsity:.1%} zeros")
    form = "densify_float32" if sparsity >= DENSIFY_PAYS else "dense_float32"
    return line(form, f"only {sparsity:.1%} zeros: the dense kernel is faster")


def _looked_up_forms(weights: str) -> tuple[str, ...]:
    return (
        ("densify_int8", "densify_float32", "dense_float32")
        if weights == "int8"
        else ("densify_float32", "dense_float32")
    )


def _float_form(line: PlanLine) -> str:
    """Return the unquantised form nearest to a quantised one."""
    sparsity = 1 - line.kept / int(np.prod(line.shape))
    if sparsity >= SPARSE_KERNEL_PAYS and line.form != "densify_int8":
        return "csr_float32"
    return "densify_float32" if sparsity >= DENSIFY_PAYS else "dense_float32"


def _measured(line: PlanLine, matrix: Matrix, forms: Sequence[str], weights: str) -> PlanLine:
    medians, sizes = measure(matrix, forms, weights)
    times = {form: round(us, 2) for form, us in medians.items()}  # one rounding: the reason says what the plan keeps
    fastest = min(times.values())
    as_fast = [form for form in forms if times[form] <= AS_FAST * fastest]
    chosen = min(as_fast, key=sizes.__getitem__)
    others = ", ".join(f"{form} {times[form]:.0f}" for form in forms if form != chosen)
    reason = f"{times[chosen]:.0f} µs; {others}"
    return replace(line, form=chosen, reason=reason, measured_us=times)


def measure(matrix: Matrix, forms: Sequence[str], weights: str) -> tuple[dict[str, float], dict[str, int]]:
    """Time one product in each form, interleaved.

    Returns:
        Medians in microseconds, and the sizes of the one-operator files in bytes.
    """
    dense = single_product(matrix)
    files = {
        form: make_sparse(dense, one_row=True, plan={WEIGHT: form}, weights=weights, names={WEIGHT: matrix}).data
        for form in forms
    }
    models = {form: open_model(data, SIGNATURE) for form, data in files.items()}
    row = np.random.default_rng(0).standard_normal((1, matrix.shape[1])).astype(np.float32)
    calls = {form: partial(model.run, {INPUT: row}) for form, model in models.items()}
    times = time_interleaved(calls, rounds=ROUNDS, each=CALLS, cold=1)
    return {form: float(np.median(found)) for form, found in times.items()}, {form: len(d) for form, d in files.items()}
