"""The keys under `training`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, field_validator

from capprune.config.tree import Tree

_INTERVAL = re.compile(r"([0-9]+(?:\.[0-9]+)?) (steps?|minutes?)")


OneOrMorePaths: TypeAlias = Path | tuple[Path, ...] | None


@dataclass(frozen=True)
class Interval:
    """A number of steps or minutes."""

    count: float
    unit: Literal["steps", "minutes"]


class DistillationConfig(Tree):
    """Distillation: learning another run's scores besides the human captions (Hinton et al., 2015)."""

    teacher: OneOrMorePaths = Field(
        default=None,
        description="folder of a run with the same vocabulary whose scores are learned, or a list of such folders, "
        "whose probabilities are averaged at every word",
    )
    weight: float = Field(default=0.5, gt=0, le=1, description="share of the teacher's scores in the loss")
    temperature: float = Field(
        default=1.0, gt=0, le=20, description="divisor of all scores; the loss is multiplied by its square"
    )
    sequences: bool = Field(
        default=False, description="learn the teacher's own caption of a photo as one more of its captions"
    )

    @field_validator("teacher")
    @classmethod
    def _is_not_empty(cls, value: OneOrMorePaths) -> OneOrMorePaths:
        if value == ():
            raise ValueError("expected the folder of a run, or a list of at least one")
        return value

    @property
    def teachers(self) -> tuple[Path, ...]:
        """The folders of all teachers."""
        if self.teacher is None:
            return ()
        return self.teacher if isinstance(self.teacher, tuple) else (self.teacher,)

    def without_places(self) -> DistillationConfig:
        """Return the section with only the last part of each path, so that no local path is published."""
        names = tuple(Path(teacher.name) for teacher in self.teachers)
        short = names if isinstance(self.teacher, tuple) else next(iter(names), None)
        return self.model_copy(update={"teacher": short})


class RewardConfig(Tree):
    """Self-critical sequence training (Rennie et al., 2017), with `<end>` as a word of the reward."""

    samples: int = Field(default=5, ge=2, le=100, description="number of sampled captions per photo")
    baseline: Literal["sample_mean", "greedy"] = Field(
        default="sample_mean",
        description="score that a sample must exceed: the mean of the other samples, or the greedy caption's",
    )
    cider: float = Field(default=1.0, ge=0, description="weight of CIDEr-D (0 to 10) in the reward")
    bleu4: float = Field(default=1.0, ge=0, description="weight of BLEU-4 (0 to 1) in the reward")
    repetition: float = Field(
        default=0.0,
        ge=0,
        description="what a caption loses whose pairs of words all repeat earlier ones; a share of repeated pairs costs as "
        "much of it",
    )
    cross_entropy: float = Field(
        default=0.0,
        ge=0,
        description="weight of the cross-entropy of human captions besides the reward; prevents captions from becoming alike",
    )


class ObjectsConfig(Tree):
    """Naming the objects in photos, beside the captions, while the encoder learns. The classifier is not part of the model."""

    weight: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="weight of the loss, beside that of the captions: the mean cross-entropy of the labels `objects` of the "
        "captions file, over classes and over photos that have labels; 0 for no such loss",
    )


class TrainingConfig(Tree):
    """Optimiser, schedule and batches. Adam; after the warm-up a cosine from `learning_rate` to `final_learning_rate`."""

    objective: Literal["cross_entropy", "scst"] = Field(
        default="cross_entropy",
        description="loss: the next word of human captions, or the score of whole sampled captions",
    )
    distillation: DistillationConfig = DistillationConfig()
    reward: RewardConfig = RewardConfig()
    objects: ObjectsConfig = ObjectsConfig()

    epochs: int = Field(default=10, ge=1, description="number of passes over the training photos")
    photos_per_batch: int = Field(
        default=10, ge=1, description="number of photos per batch; a batch contains all their captions"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="learning rate of the weights after the warm-up")
    final_learning_rate: float = Field(
        default=1e-5, ge=0, description="learning rate at the end of the run; the rate falls along half a cosine"
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the run in which the learning rate rises from 0"
    )
    adam_eps: float = Field(default=1e-8, gt=0, description="epsilon of Adam for the weights")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of Adam")
    gradient_clip: float = Field(default=5.0, ge=0, description="maximum norm of the weights' gradient; 0 for no limit")
    accumulate: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="number of parts in which each process computes its share of a batch, one after the other; "
        "needs less memory for the same batch",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="device to train on; `auto` uses a GPU if torch can, otherwise the CPU"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="number format of matrix products; bfloat16 is about 2x faster if the processor supports it, "
        "float16 is for GPUs, `auto` uses them where they are faster than float32",
    )
    compile: bool = Field(
        default=False,
        description="compile the decoder with torch.compile; does not pay on CPUs where it was measured",
    )
    validation_photos: int = Field(
        default=500, ge=1, description="number of validation photos; their greedy CIDEr-D chooses the best epoch"
    )
    seed: int = Field(default=8888, ge=0, lt=1 << 63, description="seed of all random numbers of the run")
    save_every: str = Field(
        default="10 minutes",
        description="interval between saved states within an epoch, such as `10 minutes` or `500 steps`; "
        "`epoch` saves only after each epoch",
    )

    @field_validator("save_every")
    @classmethod
    def _is_interval(cls, value: str) -> str:
        found = _INTERVAL.fullmatch(value)
        whole = found is None or found[2].startswith("minute") or "." not in found[1]
        if value != "epoch" and not (found and float(found[1]) > 0 and whole):
            raise ValueError("expected a number of steps or minutes, such as `500 steps` or `10 minutes`, or `epoch`")
        return value

    @property
    def save_interval(self) -> Interval | None:
        """`save_every` as a number and its unit; None to save only after each epoch."""
        found = _INTERVAL.fullmatch(self.save_every)
        if found is None:
            return None
        return Interval(float(found[1]), "steps" if found[2].startswith("step") else "minutes")
