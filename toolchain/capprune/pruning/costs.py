"""What a kept weight costs on the target: bytes by the format, microseconds by a measured table.

Ours, not the papers': a kept weight of the output matrix costs time at every word, one of the embedding almost none. The
sparsity loss may be taken on cost instead of on numbers of weights, and a limit in bytes or microseconds takes the place of a
percentage. With equal costs it is the papers' loss to the bit.

A table is linear in what a runtime has to do for one word:

    step = fixed + attended · regions · (A + C) + Σ over matrices of step (row · rows + kept · kept weights)

`capprune_exporters.cost_table` reads one; `python benchmarks/cost_table.py` measures one, on this machine or on a device.
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

NARROW = 256  # columns up to which an index takes one byte, two beyond
VALUE_BYTES = {CSR: 4, BLOCKS: 1}


@dataclass(frozen=True)
class Costs:
    """What the weights of a model cost in one unit.

    Attributes:
        unit: `bytes` or `step_us`.
        weight: The cost of one kept weight of each tensor.
        fixed: What is there however much is pruned.
    """

    unit: str
    weight: Mapping[str, float]
    fixed: float

    def total(self, kept: Mapping[str, int]) -> float:
        """Return the cost of a model from the number of weights that each tensor keeps."""
        return self.fixed + sum(self.weight[name] * count for name, count in kept.items())

    def sparsity(self, limit: float, sizes: Mapping[str, int]) -> float:
        """The share of all that weights can cost which has to go for a limit, 0 to 1.

        Raises:
            UnreachableTarget: If the limit is below what no pruning takes away, or above the dense model.
        """
        most = self.total(sizes)
        if not self.fixed < limit < most:
            raise UnreachableTarget(
                f"no sparsity gives this model {limit:g} {self.unit}",
                where=f"pruning.{self.unit}",
                expected=f"more than {self.fixed:,.0f}, which stay without any weight, and less than {most:,.0f}, all weights",
                found=f"{limit:g}",
                hint="choose another limit, a narrower decoder, or blocks (pruning.block=1x16)",
            )
        return (most - limit) / (most - self.fixed)


def byte_costs(model: nn.Module, layers: tuple[str, ...], widths: Mapping[str, int]) -> Costs:
    """Bytes in the files of a bundle: CSR float32 for single weights, int8 for blocks; row pointers are fixed.

    Args:
        model: The model whose layers are pruned.
        layers: Their names.
        widths: Weights a gate; 1 where left out.
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
    """Microseconds of one `step`, one row, one thread.

    Args:
        model: The model whose layers are pruned.
        layers: Their names.
        widths: Weights a gate; 1 where left out.
        table: Cost table of the target.
        attended: Numbers that a step reads of the photo: regions times the channels of keys and values.
        roles: Roles of the layers; only layers that are multiplied per word take time.
    """
    weight, fixed = {}, table.fixed_us + table.attended_ns * attended / 1000
    for name in layers:
        product = table.products[CSR if widths.get(name, 1) == 1 else BLOCKS]
        multiplied = roles.get(name) is Role.PER_WORD
        weight[f"{name}.weight"] = product.kept_ns / 1000 if multiplied else 0.0
        if multiplied:
            fixed += product.row_ns * len(trained_weight(model.get_submodule(name))) / 1000
    return Costs("step_us", weight, fixed)
