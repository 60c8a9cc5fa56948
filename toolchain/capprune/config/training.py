"""The keys under `training`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from capprune.config.tree import Tree


class DistillationConfig(Tree):
    """Learning from another run's scores beside the human captions (Hinton et al., 2015)."""

    teacher: Path | None = Field(
        default=None, description="a run of the same vocabulary; none learns from people alone"
    )
    weight: float = Field(default=0.5, gt=0, le=1, description="share of the teacher's scores in the loss")
    temperature: float = Field(
        default=1.0, gt=0, le=20, description="scores are divided by it, the loss times its square"
    )
    sequences: bool = Field(
        default=False, description="the teacher's own caption of a photo is learned as one more of its captions"
    )


class RewardConfig(Tree):
    """Self-critical sequence training (Rennie et al., 2017), with `<end>` as a word of the reward."""

    samples: int = Field(default=5, ge=2, le=100, description="sampled captions of a photo")
    baseline: Literal["sample_mean", "greedy"] = Field(
        default="sample_mean", description="what a sample must beat: the mean of the others, or the greedy caption"
    )
    cider: float = Field(default=1.0, ge=0, description="weight of CIDEr-D (0 to 10) in the reward")
    bleu4: float = Field(default=1.0, ge=0, description="weight of BLEU-4 (0 to 1) in the reward")
    cross_entropy: float = Field(
        default=0.0, ge=0, description="weight of people's words beside the reward; keeps captions from growing alike"
    )


class TrainingConfig(Tree):
    """Optimiser, schedule and batches. Adam; after the warm-up a cosine from `learning_rate` to `final_learning_rate`."""

    objective: Literal["cross_entropy", "scst"] = "cross_entropy"
    distillation: DistillationConfig = DistillationConfig()
    reward: RewardConfig = RewardConfig()

    epochs: int = Field(default=10, ge=1)
    photos_per_batch: int = Field(default=10, ge=1, description="a batch holds all captions of so many photos")
    learning_rate: float = Field(default=1e-3, gt=0)
    final_learning_rate: float = Field(default=1e-5, ge=0)
    warmup: float = Field(default=0.0, ge=0, lt=1, description="share of the run in which the learning rate rises")
    adam_eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=5.0, ge=0, description="largest norm of the weights' gradient; 0 is no limit")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of products; bfloat16 is twice as fast where the processor has it"
    )
    validation_photos: int = Field(default=500, ge=1, description="of val; greedy CIDEr on them chooses the epoch")
    seed: int = Field(default=8888, ge=0, lt=1 << 63)
