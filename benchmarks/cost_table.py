"""Measure the time of a stored weight on this machine: the table of `pruning.step_us` and of `export --plan balanced`.

    python benchmarks/cost_table.py --out costs.json
    python benchmarks/cost_table.py --name x86-64 --out exporters/capprune_exporters/cost_tables/x86-64.json

Products of one vector with matrices of several sizes and sparsities are timed in each form, with one thread. A linear model
is fitted to the medians: a time per call (dropped, because a step is one call for all its products), per row, and per stored
weight. The rest of a step is a fixed time and a time per attended region. Both come from the results of decoder_step.py on
the same machine (`--step`).
Needs only numpy and ai-edge-litert, so that it runs on a device as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_exporters.plan import measure
from capprune_runtime.measure.environment import environment

SPARSE = (0.01, 0.025, 0.05, 0.1)  # shares of kept weights
FORMS = {
    "csr_float32": ("float32", 1, SPARSE),
    "block_1x16_int8": ("int8", 16, SPARSE),
    "dense_int8": ("int8", 1, (1.0,)),
    "dense_float32": ("float32", 1, (1.0,)),
}  # quantisation of the weights, block size, shares of kept weights
ROWS, COLUMNS = (512, 2048, 4096), (512, 1280)
STEP = Path(__file__).parent / "results" / "decoder_step.json"


def points(form: str, seed: int = 8888) -> list[dict[str, float]]:
    """Return the median times of products of one form."""
    weights, width, shares = FORMS[form]
    random = np.random.default_rng(seed)
    found = []
    for rows, columns, share in itertools.product(ROWS, COLUMNS, shares):
        kept = np.repeat(random.random((rows, columns // width)) < share, width, axis=1)
        matrix = np.where(kept, random.standard_normal((rows, columns)), 0).astype(np.float32)
        times, _ = measure(matrix, [form], weights)
        found.append({"rows": rows, "columns": columns, "kept": int(np.count_nonzero(matrix)), "us": times[form]})
        print(f"{form} {rows} x {columns}, {share:.1%} kept: {times[form]:.1f} µs", file=sys.stderr)
    return found


def fit(found: list[dict[str, float]]) -> tuple[dict[str, float], float]:
    """Fit a linear model to the points by relative least squares. Returns it with its median relative error."""
    us = np.array([point["us"] for point in found])
    terms = np.array([[1.0, point["rows"] / 1000, point["kept"] / 1000] for point in found])
    solved: NDArray[np.float64] = np.linalg.lstsq(terms / us[:, None], np.ones(len(us)), rcond=None)[0]
    solved = np.maximum(solved, [0.0, 0.0, 1e-3])  # coefficients must not be negative
    error = float(np.median(np.abs(terms @ solved / us - 1)))
    return {"row_ns": float(solved[1].round(4)), "kept_ns": float(solved[2].round(4))}, error


def rest_of_step(document: dict[str, Any], products: dict[str, dict[str, float]]) -> tuple[float, float]:
    """Return the time of a step besides its products: fixed microseconds, and nanoseconds per region and channel."""
    settings = document["settings"]
    width, hidden = settings["width"], settings["width"]
    block = products["block_1x16_int8"]
    shapes = [(4 * hidden, 3 * width), (width, hidden), (settings["vocabulary"], hidden)]
    kept = (1 - settings["sparsity"]) * sum(rows * columns for rows, columns in shapes)
    rows = sum(rows for rows, _ in shapes)
    in_products = (block["row_ns"] * rows + block["kept_ns"] * kept) / 1000
    grids = [
        (settings["regions"], document["rows"]),
        (document["other_regions"]["regions"], document["other_regions"]["rows"]),
    ]
    times = [(regions, _median(found)) for regions, found in grids]
    (few, short), (many, long) = times
    attended_ns = max(0.0, 1000 * (long - short) / ((many - few) * 2 * width))
    return max(0.0, short - in_products - attended_ns * few * 2 * width / 1000), attended_ns


def _median(rows: list[dict[str, Any]]) -> float:
    return float(next(row["us_p50"] for row in rows if row["format"] == "block_1x16_int8"))


def main() -> None:
    """Measure the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default=None)
    parser.add_argument("--step", type=Path, default=STEP)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found = {form: points(form) for form in FORMS}
    fitted = {form: fit(one) for form, one in found.items()}
    products = {form: line for form, (line, _) in fitted.items()}
    fixed_us, attended_ns = rest_of_step(json.loads(options.step.read_text(encoding="utf-8")), products)
    here = environment("ai-edge-litert", 1)
    table = {
        "schema_version": 1,
        "name": options.name or options.out.stem,
        "machine": f"{here.cpu_model}, {here.machine}",
        "runtime": "ai-edge-litert, one thread",
        "load_when_started": round(load, 1),
        "fixed_us": round(fixed_us, 2),
        "attended_ns": round(attended_ns, 4),
        "products": products,
        "median_error_of_the_line": {form: round(error, 3) for form, (_, error) in fitted.items()},
        "points": found,
    }
    options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"written: {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
