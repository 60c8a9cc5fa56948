"""From drawn scenes to a verified sparse bundle: train, prune, export, validate, pack. Takes about a minute on one core.

python docs/examples/train_and_export.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import capprune

CONFIG = {
    "name": "scenes",
    "data": {"minimum_count": 1, "licence": "drawn"},
    "encoder": {"size": 64},
    "decoder": {"embedding": 32, "hidden": 64, "attention": 64, "context": 64},
    "training": {"epochs": 6, "photos_per_batch": 10, "learning_rate": 0.005, "validation_photos": 20},
}


def main(out: Path) -> None:
    """Train a dense run, prune it, and print what the sparse bundle reached."""
    scenes = capprune.draw_scenes(out=out / "scenes", train=100, val=20, test=20, size=64)
    progress = capprune.Lines()  # lines on stderr; the default is silent
    data = {"data.folder": scenes.folder}
    dense = capprune.train(CONFIG, out=out / "dense", overrides=data, cache=out / "cache", progress=progress)
    options = {"pruning.sparsity": 0.8, "training.epochs": 4}
    sparse = dense.prune(out=out / "sparse", method="hard", overrides=options, cache=out / "cache", progress=progress)
    bundle = sparse.export(out / "bundle", weights="float32")  # so tiny a model is not worth int8, the default
    result = bundle.validate(scenes.folder, reference=sparse)
    result.raise_if_failed()  # the parity and quality gates
    packed = bundle.pack()
    print(f"{sparse.sparsity:.0%} sparse, CIDEr-D {result.cider_d:.3f}, {packed.report.packed_bytes:,} bytes packed")
    print(packed.load().caption(scenes.folder / "photos" / "scene-00000.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
