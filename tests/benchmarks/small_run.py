"""A small run that says it was trained, and its bundle: what benchmarks/flickr8k.py measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from capprune.config.reading import load_config
from capprune.config.run import RunConfig
from capprune.data.captions import load_caption_set
from capprune.data.scenes import draw_scenes
from capprune.data.vocabulary import build_vocabulary
from capprune.exporting import export
from capprune.models.efficientnet_lite import CHANNELS
from capprune.models.soft_attention import SoftAttention
from capprune.training.run import BEST, append_metrics, load_run, save_checkpoint, start_run

SPARSITY = 0.9
CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True)
class Measured:
    """Drawn scenes, a run with random weights and masks that says it was trained, and its bundle."""

    data: Path
    run: Path
    bundle: Path
    config: RunConfig


def make_measured(root: Path) -> Measured:
    data, run, bundle = root / "flickr8k", root / "flickr8k-sparse", root / "bundle"
    draw_scenes(data, count={"train": 8, "val": 2, "test": 5}, seed=4, size=64)
    sizes = [f"decoder.{name}=64" for name in ("embedding", "hidden", "attention", "context")]
    overrides = [f"data.folder={data}", "encoder.size=64", "encoder.grid=2", *sizes, "training.epochs=2"]
    config = load_config(CONFIGS / "flickr8k_sparse.yaml", overrides)
    captions = [caption for photo in load_caption_set(data).split("train") for caption in photo.captions]
    vocabulary = build_vocabulary(captions, minimum_count=1)
    start_run(run, config, vocabulary)
    torch.manual_seed(5)
    weights = SoftAttention(config.decoder, features=CHANNELS, vocabulary=len(vocabulary)).state_dict()
    gates = {
        f"{name}.gate": torch.where(torch.rand_like(value) < SPARSITY, -1.0, 1.0)
        for name, value in weights.items()
        if name.endswith("weight")
    }
    save_checkpoint(run / BEST, {**weights, **gates}, {"step": 10, "epoch": 1, "cider": 0.25, "sparsity": SPARSITY})
    append_metrics(run, {"step": 5, "epoch": 0, "loss": 3.5, "learning_rate": 1e-3})
    append_metrics(run, {"step": 5, "epoch": 0, "cider": 0.125, "seconds": 8.0, "sparsity": 0.5})
    append_metrics(run, {"step": 10, "epoch": 1, "cider": 0.25, "seconds": 10.0, "sparsity": SPARSITY})
    export(load_run(run), bundle)
    return Measured(data, run, bundle, config)
