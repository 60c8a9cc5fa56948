"""The balanced plan, and the predicted time of a plan beside the same model dense in int8.

Both use a measured cost table, so that the same run always gives the same plan. A balanced plan starts with the
smallest form of each matrix. As long as the decoder stays within half of the bytes that it would have dense in int8, it
then takes the faster form that saves the most time for its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from capprune_exporters.cost_table import BLOCKS, CSR, DENSE_FLOAT32, DENSE_INT8, CostTable
from capprune_exporters.plan import AS_FAST, Matrix, Plan, PlanLine, candidates, in_blocks, plan_by_size
from capprune_exporters.tflite.forms import BLOCK
from capprune_exporters.tflite.sparse import SMALLEST
from capprune_runtime.errors import ConfigError

SHARE = 0.5  # of the bytes of the model dense in int8; a balanced plan may use this much
NARROW = 256  # columns up to which an index takes one byte, two beyond
TIMED_AS = {"densify_float32": DENSE_FLOAT32, "densify_int8": DENSE_FLOAT32}  # expanded at load, then dense


@dataclass(frozen=True)
class Predicted:
    """Predicted time of the matrix products of one step, one row, one thread.

    Attributes:
        costs: Name of the cost table.
        plan_us: Microseconds as planned.
        dense_int8_us: Microseconds with every matrix dense in int8.
    """

    costs: str
    plan_us: float
    dense_int8_us: float

    @property
    def slower(self) -> bool:
        """Whether the plan is clearly slower than dense int8."""
        return self.plan_us > AS_FAST * self.dense_int8_us


@dataclass(frozen=True)
class _Choice:
    """One possible form of a matrix, with its predicted time and its bytes in the file."""

    form: str
    us: float
    size: float


def plan_balanced(matrices: Mapping[str, Matrix], looked_up: Sequence[str], weights: str, table: CostTable) -> Plan:
    """Plan the fastest forms within half of the bytes of the model dense in int8.

    Args:
        matrices: The masked weight matrices of `step`, (N, K), by name.
        looked_up: Names of the matrices that are looked up by row. The fixed rule decides for them.
        weights: One of `Weights`.
        table: Cost table of the processor that the bundle is for.

    Raises:
        ConfigError: The table has no times of dense products.
    """
    _check(table)
    plan = plan_by_size(matrices, looked_up, weights)
    choices = {
        line.tensor: _choices(matrices[line.tensor], weights, table)
        for line in plan.lines
        if line.tensor not in looked_up and len(candidates(matrices[line.tensor], weights)) > 1
    }
    chosen = {name: min(some, key=lambda one: (one.size, one.us)) for name, some in choices.items()}
    room = SHARE * sum(matrix.size for matrix in matrices.values()) - sum(one.size for one in chosen.values())
    while steps := list(_upgrades(choices, chosen, room)):
        name, choice = max(steps, key=lambda step: _saved_per_byte(chosen[step[0]], step[1]))
        room -= choice.size - chosen[name].size
        chosen[name] = choice
    lines = (_line(line, chosen, choices) for line in plan.lines)
    return Plan(weights, "balanced", tuple(lines))


def predict(plan: Plan, matrices: Mapping[str, Matrix], looked_up: Sequence[str], table: CostTable) -> Predicted:
    """Predict the time of a plan's matrix products beside those of the model dense in int8.

    Raises:
        ConfigError: The table has no times of dense products.
    """
    _check(table)
    multiplied = {name: matrix for name, matrix in matrices.items() if name not in looked_up}
    large = {name: matrix for name, matrix in multiplied.items() if matrix.size >= SMALLEST}
    return Predicted(
        table.name,
        sum(_us(plan.forms[name], matrix, table) for name, matrix in large.items()),
        sum(_us(DENSE_INT8, matrix, table) for matrix in large.values()),
    )


def _check(table: CostTable) -> None:
    if missing := sorted({DENSE_INT8, DENSE_FLOAT32} - set(table.products)):
        raise ConfigError(
            "this cost table has no times of dense products",
            where=table.name,
            expected=", ".join((CSR, BLOCKS, DENSE_INT8, DENSE_FLOAT32)),
            found=f"no {' and no '.join(missing)}",
            hint="python benchmarks/cost_table.py --out costs.json measures them",
        )


def _choices(matrix: Matrix, weights: str, table: CostTable) -> list[_Choice]:
    forms = [form for form in candidates(matrix, weights) if form != BLOCKS or in_blocks(matrix)]
    return [_Choice(form, _us(form, matrix, table), _size(form, matrix)) for form in forms]


def _upgrades(
    choices: Mapping[str, list[_Choice]], chosen: Mapping[str, _Choice], room: float
) -> list[tuple[str, _Choice]]:
    """Return the clearly faster forms that fit."""
    return [
        (name, choice)
        for name, some in choices.items()
        for choice in some
        if AS_FAST * choice.us < chosen[name].us and choice.size - chosen[name].size <= room
    ]


def _saved_per_byte(now: _Choice, then: _Choice) -> float:
    return (now.us - then.us) / max(then.size - now.size, 1.0)


def _us(form: str, matrix: Matrix, table: CostTable) -> float:
    return table.products[TIMED_AS.get(form, form)].us(len(matrix), _stored(form, matrix))


def _stored(form: str, matrix: Matrix) -> int:
    """Number of values that a form stores of a matrix, or computes with if it is expanded at load."""
    if form == CSR:
        return int(np.count_nonzero(matrix))
    if form == BLOCKS:
        blocks = (matrix != 0).reshape(len(matrix), -1, BLOCK).any(-1)
        return BLOCK * int(blocks.sum())
    return matrix.size


def _size(form: str, matrix: Matrix) -> float:
    rows, columns = matrix.shape
    if form == BLOCKS:
        return _stored(form, matrix) * (1 + 1 / BLOCK) + rows
    if form in (CSR, "densify_float32"):
        index = 1 if columns <= NARROW else 2
        return int(np.count_nonzero(matrix)) * (4 + index) + 2 * rows
    return matrix.size * (1 if form == DENSE_INT8 else 4)


def _line(line: PlanLine, chosen: Mapping[str, _Choice], choices: Mapping[str, list[_Choice]]) -> PlanLine:
    """Return the line with its chosen form and a reason that names what was given up."""
    if line.tensor not in chosen:
        return line
    own = chosen[line.tensor]
    others = [one for one in choices[line.tensor] if one is not own and (one.us < own.us or one.size < own.size)]
    reason = "; ".join([f"{own.us:.0f} µs", *(_beside(own, other) for other in others)])
    quantised = "float32" if own.form == DENSE_FLOAT32 else line.weights
    return replace(line, form=own.form, weights=quantised, reason=reason)


def _beside(own: _Choice, other: _Choice) -> str:
    less, more = other.size < own.size, other.size > own.size
    by = max(own.size, other.size) / max(min(own.size, other.size), 1.0)
    size = f", {by:.1f} times {'smaller' if less else 'larger'}" if less or more else ""
    return f"{other.form} {other.us:.0f} µs{size}"
