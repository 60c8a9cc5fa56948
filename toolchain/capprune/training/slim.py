"""A run small enough to hand on: what a next stage, an export or a student needs, in float16 and without what is pruned.

    python -m capprune.training.slim runs/sparse ready_model/sparse

The folder is a run like any other. Of a pruned weight its file holds

    X.weight.kept    float16 (n,): the weights that are kept, row by row
    X.weight.bits    uint8: which ones these are, a bit each, eight to a byte, the first in the highest bit

and the shape among its facts. 97.5 % sparse with 16 million weights that is 3 MB instead of 130.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from capprune.training.run import BEST, CONFIG, METRICS, VOCABULARY, read_run, save_checkpoint
from capprune.training.slim_tensors import SHAPES, slimmed
from capprune_runtime.atomic import atomic_folder


def slim_run(run: Path, out: Path) -> None:
    """Write a small run of the best checkpoint of another.

    Args:
        run: A finished or unfinished run with a best checkpoint.
        out: Folder to be made.

    Raises:
        UsageError: If there is no such run, or `out` exists.
        BundleError: If the run is broken.
    """
    found = read_run(run)
    tensors, shapes = slimmed(found.weights, found.masks)
    with atomic_folder(out) as folder:
        (folder / CONFIG).write_text(found.config.without_places().as_yaml(), encoding="utf-8")
        for name in (VOCABULARY, METRICS):
            shutil.copyfile(run / name, folder / name)
        save_checkpoint(folder / BEST, tensors, {**found.facts, SHAPES: json.dumps(shapes)})


if __name__ == "__main__":
    slim_run(Path(sys.argv[1]), Path(sys.argv[2]))
