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
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

KEPT, BITS, SHAPES = ".kept", ".bits", "shapes"


def slimmed(
    weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """The tensors of a small checkpoint and the shapes that they do not tell.

    Args:
        weights: By name.
        masks: For every pruned weight which entries are kept, of the weight's shape.
    """
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name in masks:
            kept = masks[name].bool()
            tensors[name + KEPT] = weight[kept].half()
            tensors[name + BITS] = torch.from_numpy(np.packbits(kept.numpy()))
        else:  # biases and the statistics of norms are few, and these may be large
            tensors[name] = weight.half() if weight.is_floating_point() and weight.ndim > 1 else weight
    return tensors, {name: list(weights[name].shape) for name in masks}


def widened(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The way back: float32 weights, and the masks of those that were slimmed.

    Raises:
        KeyError: If a tensor or a shape is missing.
        ValueError: If sizes do not fit each other.
    """
    shapes = json.loads(facts.get(SHAPES, "{}"))
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
        if not name.endswith((KEPT, BITS))
    }
    masks = {}
    for name, shape in shapes.items():
        bits, kept, size = tensors[name + BITS], tensors[name + KEPT], int(np.prod(shape))
        if bits.dtype != torch.uint8 or bits.numel() != -(-size // 8):
            raise ValueError(f"{bits.numel()} bytes of bits do not fit {name} of {size} weights")
        mask = torch.from_numpy(np.unpackbits(bits.numpy(), count=size).astype(bool)).reshape(shape)
        if int(mask.sum()) != kept.numel():
            raise ValueError(f"{kept.numel()} weights do not fit the {int(mask.sum())} bits of {name}")
        masks[name] = mask
        weights[name] = torch.zeros(shape).masked_scatter_(mask, kept.float())
    return weights, masks


def slim_run(run: Path, out: Path) -> None:
    """Write a small run of the best checkpoint of another.

    Args:
        run: A finished or unfinished run with a best checkpoint.
        out: Folder to be made.

    Raises:
        UsageError: If there is no such run, or `out` exists.
        BundleError: If the run is broken.
    """
    from capprune.training.run import BEST, CONFIG, METRICS, VOCABULARY, read_run, save_checkpoint
    from capprune_runtime.atomic import atomic_folder

    found = read_run(run)
    tensors, shapes = slimmed(found.weights, found.masks)
    with atomic_folder(out) as folder:
        (folder / CONFIG).write_text(found.config.without_places().as_yaml(), encoding="utf-8")
        for name in (VOCABULARY, METRICS):
            shutil.copyfile(run / name, folder / name)
        save_checkpoint(folder / BEST, tensors, {**found.facts, SHAPES: json.dumps(shapes)})


if __name__ == "__main__":
    slim_run(Path(sys.argv[1]), Path(sys.argv[2]))
