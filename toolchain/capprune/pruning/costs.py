"""What a kept weight costs on the target: bytes by the format, microseconds by a measured table.

Ours, not the papers': a kept weight of the output matrix costs time at every word, one of the embedding almost none. The
sparsity loss may be taken on cost instead of on numbers of weights, and a limit in bytes or microseconds takes the place of a
percentage. With equal costs it is the papers' loss to the bit.

A table is linear in what a runtime has to do for one word:

    step = fixed + attended · regions · (A + C) + Σ over matrices of step (row · rows + kept · kept weights)

`python benchmarks/cost_table.py` measures one, on this machine or on a device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from torch import nn

from capprune.models.family import Role
from capprune.pruning.layers import trained_weight
from capprune_runtime.errors import ConfigError, UnreachableTarget

SCHEMA_VERSION = 1
TABLES = "capprune.pruning.cost_tables"
CSR, BLOCKS = "csr_float32", "block_1x16_int8"
NARROW = 256  # columns up to which an index takes one byte, two beyond
VALUE_BYTES = {CSR: 4, BLOCKS: 1}


@dataclass(frozen=True)
class Product:
    """Time of one matrix product with one vector, in a stored form.

    Attributes:
        row_ns: For every row (output), nanoseconds.
        kept_ns: For every kept weight, nanoseconds.
    """

    row_ns: float
    kept_ns: float


@dataclass(frozen=True)
class CostTable:
    """Measured times of a target.

    Attributes:
        name: Name of the table.
        machine: What was measured, in words.
        runtime: The interpreter and its version.
        fixed_us: Time of a step without its matrix products and its attention, in µs.
        attended_ns: For every region and every channel of its key and value.
        products: By form.
    """

    name: str
    machine: str
    runtime: str
    fixed_us: float
    attended_ns: float
    products: Mapping[str, Product]


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


def read_cost_table(name: str) -> CostTable:
    """A table that ships, by its name, or a file that `benchmarks/cost_table.py` wrote.

    Raises:
        ConfigError: If there is none, or it is broken.
    """
    shipped = resources.files(TABLES) / f"{name}.json"
    path = Path(name)
    if not path.is_file() and not shipped.is_file():
        known = ", ".join(
            sorted(Path(str(one)).stem for one in resources.files(TABLES).iterdir() if _is_table(str(one)))
        )
        raise ConfigError(
            "there is no such table of costs",
            where="pruning.costs",
            expected=f"{known}, or a file",
            found=name,
            hint="python benchmarks/cost_table.py --out costs.json measures one",
        )
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else shipped.read_text(encoding="utf-8")
        return _parsed(json.loads(text), name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "this table of costs is broken", where=name, found=f"{type(error).__name__}: {error}"
        ) from error


def _is_table(name: str) -> bool:
    return name.endswith(".json")


def _parsed(tree: Mapping[str, object], name: str) -> CostTable:
    if tree["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {tree['schema_version']}, expected {SCHEMA_VERSION}")
    products = tree["products"]
    if not isinstance(products, dict):
        raise TypeError("products must be a tree")
    found = {form: Product(**{key: float(value) for key, value in one.items()}) for form, one in products.items()}
    if not {CSR, BLOCKS} <= set(found) or any(product.kept_ns <= 0 for product in found.values()):
        raise ValueError(f"products must hold {CSR} and {BLOCKS} with a positive kept_ns")
    return CostTable(
        name=name,
        machine=str(tree["machine"]),
        runtime=str(tree["runtime"]),
        fixed_us=float(str(tree["fixed_us"])),
        attended_ns=float(str(tree["attended_ns"])),
        products=found,
    )


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
