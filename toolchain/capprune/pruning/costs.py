"""Cost of a kept weight on the target: bytes according to the format, microseconds according to a measured table.

Costs are not in the papers. A kept weight of the output matrix takes time at every word, one of the embedding almost none.
The sparsity loss can therefore use costs instead of numbers of weights. A limit in bytes or microseconds then replaces the
target sparsity. With equal costs, the loss is bit-identical to the papers' loss.

The time of a step is linear in the work for one word:

    step = fixed + attended · regions · (A + C) + Σ over matrices of step (row · rows + kept · kept weights)

`capprune_exporters.cost_table` reads a table; `python benchmarks/cost_table.py` measures one, on this machine or on a device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from capprune.models.family import Role
from capprune.pruning.layers import trained_weight
from capprune_exporters.cost_table import BLOCKS, CSR, CostTable
from capprune_runtime.errors import UnreachableTarget

NARROW = 256  # largest number of columns for which an index takes one byte; two bytes above
VALUE_BYTES = {CSR: 4, BLOCKS: 1}


@dataclass(frozen=True)
class Costs:
    """Cost of a model's weights in one unit.

    Attributes:
        unit: `bytes` or `step_us`.
        weight: Cost of one kept weight of each tensor.
        fixed: Cost that pruning cannot remove.
    """

    unit: str
    weight: Mapping[str, float]
    fixed: float

    def total(self, kept: Mapping[str, int]) -> float:
        """Return the cost of a model from the number of weights that each tensor keeps."""
        return self.fixed + sum(self.weight[name] * count for name, count in kept.items())

    def sparsity(self, limit: float, sizes: Mapping[str, int]) -> float:
        """Return the share of the weights' cost to remove for a limit, 0 to 1.

        Raises:
            UnreachableTarget: If the limit is not between the fixed cost and the cost of the dense model.
        """
        most = self.total(sizes)
        if not self.fixed < limit < most:
            raise UnreachableTarget(
                f"no sparsity brings this model to {limit:g} {self.unit}",
                where=f"pruning.{self.unit}",
                expected=f"more than {self.fixed:,.0f} (no weights) and less than {most:,.0f} (all weights)",
                found=f"{limit:g}",
                hint="choose another limit, a narrower decoder, or blocks (pruning.block=1x16)",
            )
        return (most - limit) / (most - self.fixed)


def byte_costs(model: nn.Module, layers: tuple[str, ...], widths: Mapping[str, int]) -> Costs:
    """Return costs in bytes of the bundle's files: CSR float32 for single weights, int8 for blocks; row pointers are fixed.

    Args:
        model: The model whose layers are pruned.
        layers: Their names.
        widths: Weights per gate; 1 where left out.
    """
    weight, fixed = {}, 0.0
    for name in layers:
        outputs, columns, *area = trained_weight(model.get_submodule(name)).shape
        rows = outputs * math.prod(area)  # of a filter: outputs x height x width, each a row along the inputs
        width = widths.get(name, 1)
        index = 1 if columns // width <= NARROW else 2
        weight[f"{name}.weight"] = VALUE_BYTES[CSR if width == 1 else BLOCKS] + index / width
        fixed += 2 * (rows + 1)
    return Costs("bytes", weight, fixed)


def time_costs(
    model: nn.Module,
    layers: tuple[str, ...],
    widths: Mapping[str, int],
    table: CostTable,
    attended: int,
    roles: Mapping[str, Role],
) -> Costs:
    """Return costs in microseconds of one `step`, for one row and one thread.

    Args:
        model: The model whose layers are pruned.
        layers: Their names.
        widths: Weights per gate; 1 where left out.
        table: Cost table of the target.
        attended: Number of photo features that a step reads: regions times the channels of keys and values.
        roles: Roles of the layers; only layers that are multiplied once per word take time.
    """
    weight, fixed = {}, table.fixed_us + table.attended_ns * attended / 1000
    for name in layers:
        product = table.products[CSR if widths.get(name, 1) == 1 else BLOCKS]
        multiplied = roles.get(name) is Role.PER_WORD
        weight[f"{name}.weight"] = product.kept_ns / 1000 if multiplied else 0.0
        if multiplied:
            fixed += product.row_ns * len(trained_weight(model.get_submodule(name))) / 1000
    return Costs("step_us", weight, fixed)
