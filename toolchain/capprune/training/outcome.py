"""What goes into a training and what comes out of it: a split, where a run is, what it reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from capprune.training.batches import BatchSource
from capprune.training.encoder import Table
from capprune.training.health import Sign


@dataclass(frozen=True)
class Split:
    """One split as training needs it.

    Attributes:
        names: Of the photos.
        features: Of the photos, in the same order, `(P, R, F)`; for an encoder that learns their pixels `(P, S, S, 3)`.
        captions: For every photo its captions as ids.
        taught: What a teacher sees of them, `(P, R, F)` of its own encoder; `features` if left out.
        batches: Of every epoch, where they are read from shards; made of `captions` if left out.
    """

    names: Sequence[str]
    features: Table
    captions: Sequence[Sequence[tuple[int, ...]]]
    taught: Table | None = None
    batches: BatchSource | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run is, for whoever shows it."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    captions_per_second: float
    seconds_left: float
    sparsity: float | None
    cider: float | None
    signs: tuple[Sign, ...] = ()  # that it is not learning, after an epoch


@dataclass(frozen=True)
class Outcome:
    """What a finished run reached.

    Attributes:
        epoch: Of the best checkpoint.
        cider: Its CIDEr-D on the validation photos, greedy.
        sparsity: Its share of closed gates; 0 for a dense run.
        seconds_per_epoch: Median, of this sitting.
        settled: Gates that were moved after the last step, because no epoch had ended at the target.
        signs: That it was not learning, after the last epoch.
    """

    epoch: int
    cider: float
    sparsity: float
    seconds_per_epoch: float | None
    settled: int = 0
    signs: tuple[Sign, ...] = ()


Quality = Callable[[Mapping[str, str]], float]  # captions of the validation photos to their CIDEr-D
Health = Callable[[Mapping[str, str]], Mapping[str, object]]  # the same captions to signs of sick ones
Report = Callable[[Progress], None]
