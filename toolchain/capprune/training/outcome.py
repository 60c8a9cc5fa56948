"""Inputs and results of a training run: splits, progress and the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from capprune.training.batches import BatchSource
from capprune.training.encoder import InputTable
from capprune.training.health import Sign


@dataclass(frozen=True)
class Split:
    """One split of the training data.

    Attributes:
        names: Names of the photos.
        features: Features of the photos in the same order, `(P, R, F)`; pixels `(P, S, S, 3)` for a trained encoder.
        captions: For every photo its captions as ids.
        taught: For each teacher its features `(P, R, F)` from its own encoder; `features` for all if left out.
        batches: The batches of every epoch if they are read from shards; made of `captions` if left out.
        weights: Mean number of uses of every photo in an epoch; once each if left out.
        objects: Names of the objects in every photo, empty if they are not known; none are known if left out.
    """

    names: Sequence[str]
    features: InputTable
    captions: Sequence[Sequence[tuple[int, ...]]]
    taught: Sequence[InputTable] = ()
    batches: BatchSource | None = None
    weights: Sequence[float] | None = None
    objects: Sequence[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Progress:
    """Progress of a run, to be displayed."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    captions_per_second: float
    seconds_left: float
    sparsity: float | None
    cider: float | None
    signs: tuple[Sign, ...] = ()  # signs that the model does not learn, after an epoch


@dataclass(frozen=True)
class Outcome:
    """Results of a finished run.

    Attributes:
        epoch: Epoch of the best checkpoint.
        cider: CIDEr-D of its greedy captions of the validation photos.
        sparsity: Its share of closed gates; 0 for a dense run.
        seconds_per_epoch: Median over the epochs since the last start of the run.
        settled: Number of gates changed after the last step, because no epoch had ended at the target.
        signs: Signs after the last epoch that the model does not learn.
    """

    epoch: int
    cider: float
    sparsity: float
    seconds_per_epoch: float | None
    settled: int = 0
    signs: tuple[Sign, ...] = ()


Quality = Callable[[Mapping[str, str]], float]  # from captions of the validation photos to their CIDEr-D
Health = Callable[[Mapping[str, str]], Mapping[str, object]]  # from the same captions to facts about their health
Report = Callable[[Progress], None]
