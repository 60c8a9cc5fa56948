"""Compare two pruning methods on drawn scenes: one sweep, one table, one report. Takes about a minute on one core.

python docs/examples/compare_methods.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import capprune

CONFIG = """
name: compare
data: {folder: FOLDER, minimum_count: 1, licence: drawn}
encoder: {size: 64}
decoder: {embedding: 16, hidden: 32, attention: 32, context: 32}
training: {epochs: 2, photos_per_batch: 10, learning_rate: 0.01, validation_photos: 10}
pruning: {sparsity: 0.8}
"""


def main(out: Path) -> None:
    """Train the runs of the grid, and print the table."""
    scenes = capprune.draw_scenes(out=out / "scenes", train=60, val=10, test=10, size=64)
    config = out / "config.yaml"
    config.write_text(CONFIG.replace("FOLDER", str(scenes.folder)), encoding="utf-8")
    grid = {"pruning.method": ["snip", "hard"], "weights": ["float32", "int8"]}
    table = capprune.sweep(config, grid=grid, out=out / "sweep", cache=out / "cache", progress=capprune.Lines())
    table.raise_if_all_failed()
    columns, rows = table.cells()
    for row in rows:
        print(dict(zip(columns, row, strict=True)))
    print(table.table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
