"""Tables of the time of matrix products by storage form, measured for one kind of processor.

A product of a matrix with one vector takes

    row · rows + stored · stored values

nanoseconds. `python benchmarks/cost_table.py` measures a table, on this machine or on a device. The shipped tables are
in `capprune_exporters.cost_tables`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from capprune_runtime.errors import ConfigError

SCHEMA_VERSION = 1
TABLES = "capprune_exporters.cost_tables"
DEFAULT_COSTS = "x86-64"
CSR, BLOCKS = "csr_float32", "block_1x16_int8"
DENSE_INT8, DENSE_FLOAT32 = "dense_int8", "dense_float32"


@dataclass(frozen=True)
class Product:
    """Time of one matrix product with one vector, in one form.

    Attributes:
        row_ns: Nanoseconds for each row (output).
        kept_ns: Nanoseconds for each stored value: a kept weight in a sparse form, any weight in a dense form.
    """

    row_ns: float
    kept_ns: float

    def us(self, rows: int, stored: int) -> float:
        """Return the time of a product in microseconds.

        Args:
            rows: Number of outputs.
            stored: Number of stored values.
        """
        return (self.row_ns * rows + self.kept_ns * stored) / 1000


@dataclass(frozen=True)
class CostTable:
    """Measured times on one kind of processor.

    Attributes:
        name: Name of the table.
        machine: The measured processor, in words.
        runtime: The interpreter and its number of threads.
        fixed_us: Time of a step without its matrix products and its attention, in microseconds.
        attended_ns: Nanoseconds for each region and each channel of its key and value.
        products: By storage form.
    """

    name: str
    machine: str
    runtime: str
    fixed_us: float
    attended_ns: float
    products: Mapping[str, Product]


def read_cost_table(name: str, where: str) -> CostTable:
    """Return a shipped table by its name, or read a file of `benchmarks/cost_table.py`.

    Args:
        name: Name of a shipped table, or path of a JSON file.
        where: The option or config key that named it, for messages.

    Raises:
        ConfigError: There is no such table, or it is broken.
    """
    shipped = resources.files(TABLES) / f"{name}.json"
    path = Path(name)
    if not path.is_file() and not shipped.is_file():
        raise ConfigError(
            "there is no such cost table",
            where=where,
            expected=f"{', '.join(shipped_tables())}, or a file",
            found=name,
            hint="python benchmarks/cost_table.py --out costs.json measures one",
        )
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else shipped.read_text(encoding="utf-8")
        return _parsed(json.loads(text), name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise ConfigError("this cost table is broken", where=f"{where} {name}", found=found) from error


def shipped_tables() -> tuple[str, ...]:
    """Return the names of the shipped tables."""
    files = (Path(str(entry)) for entry in resources.files(TABLES).iterdir())
    return tuple(sorted(path.stem for path in files if path.suffix == ".json"))


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
