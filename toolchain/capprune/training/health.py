"""Signs that a model does not learn: equal captions, a constant loss, no use of the photos.

After every epoch a few validation photos are scored under teacher forcing, once with their own features and once with
those of another photo. A model that uses the photos gives its captions a higher likelihood with the right features. The
loss is also compared with that of word frequencies alone, which any model beats after some hundred steps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from capprune.models.family import Decoder
from capprune.pruning.supermask import Supermask
from capprune.training.batches import Batches
from capprune.training.encoder import InputTable, Sight
from capprune_runtime.bundle.vocabulary import END

PROBED = 128  # validation photos that are scored with their own features and with those of another photo
TOGETHER = 16  # photos per batch of the probe
FEWEST = 8  # photos; with fewer, equal captions or equal losses may be chance
EQUAL_SHARE = 0.9  # share of photos with the same caption from which all captions count as equal
LEAST_SPREAD = 1e-3  # of the features over photos, relative to their size; about 1 for EfficientNet-Lite0
SURE = 2.0  # standard errors by which the own features must be better
LEAST_GAIN = 1e-3  # of the loss; smaller differences are ignored
STILL = 1e-4  # of the loss; smaller changes between epochs count as none
ONLY_WORDS = 0.98  # of the loss of word frequencies; above it the model has learned only these
WORSE = 1.1  # of the loss of a random guess; above it the model is worse than an untrained one
EARLY_STEPS = 500  # number of first steps in which a run on real photos may learn little but word frequencies
FEW_STEPS = 100  # with fewer steps no model can have learned much
HARDLY = 0.8  # of the loss of word frequencies; above it the model has learned little more than these
HIGH_RATE, LOW_RATE, USUAL_RATE = 2e-2, 1e-5, 1e-3  # of Adam; the usual rate is the default


@dataclass(frozen=True)
class Sign:
    """A sign that a model does not learn.

    Attributes:
        kind: `same_features`, `same_captions`, `loss_stands_still` or `photos_unused`.
        found: The measured values.
        cause: The likely cause.
        hint: What to try.
    """

    kind: str
    found: str
    cause: str
    hint: str

    def as_json(self) -> dict[str, object]:
        """Return all attributes by name."""
        return asdict(self)

    def lines(self) -> tuple[str, str, str]:
        """Return the lines to print."""
        return f"warning: {self.found}", f"  likely cause: {self.cause}", f"  try: {self.hint}"


@dataclass(frozen=True)
class Probe:
    """The decoder's losses on some validation photos.

    Attributes:
        loss: Mean cross-entropy per word with the photos' own features, in nats.
        swapped_loss: The same with the features of other photos.
        gains: For every photo, the decrease of its captions' cross-entropy with its own features, in nats per word.
        spread: Standard deviation of the features over photos, relative to their mean size.
    """

    loss: float
    swapped_loss: float
    gains: npt.NDArray[np.float64]
    spread: float

    def looks(self) -> bool:
        """Return whether the loss depends on the photos."""
        error = float(self.gains.std(ddof=1)) / math.sqrt(len(self.gains)) if len(self.gains) > 1 else 0.0
        return float(self.gains.mean()) > max(SURE * error, LEAST_GAIN * self.loss)


@dataclass(frozen=True)
class Moment:
    """State of a run when it is judged.

    Attributes:
        epoch: Epoch of the run, from 0.
        last: Whether this is the last epoch.
        step: Steps so far.
        learning_rate: The highest learning rate of the run.
        previous_loss: `Probe.loss` after the previous epoch; None after the first.
        sparsity: Share of weights that are pruned; None for a dense run.
        started: Whether the run began with the weights of another run.
        likelihood: Whether the objective is likelihood, not a reward.
    """

    epoch: int
    last: bool
    step: int
    learning_rate: float
    previous_loss: float | None
    sparsity: float | None
    started: bool
    likelihood: bool

    @property
    def young(self) -> bool:
        """Whether a healthy run may have learned nothing yet, and training continues."""
        return self.step < FEW_STEPS and not self.last


def signs_of(metrics: Sequence[Mapping[str, Any]]) -> tuple[Sign, ...]:
    """Return the signs after the last epoch of a run, from the lines of its metrics.jsonl."""
    found = [line["warnings"] for line in metrics if "warnings" in line]
    return tuple(Sign(**one) for one in found[-1]) if found else ()


def validation_loss(metrics: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the validation loss after the last epoch; None before the first epoch and for runs of older versions."""
    found = [float(line["validation_loss"]) for line in metrics if "validation_loss" in line]
    return found[-1] if found else None


class Watch:
    """Judges a run after each of its epochs.

    Args:
        decoder: The run's decoder.
        sight: Computes features of photos.
        train: Captions of the training photos as ids, for the word frequencies.
        photos: The validation photos, as `Sight` takes them.
        captions: Captions of the validation photos as ids.
    """

    def __init__(
        self,
        decoder: Decoder,
        sight: Sight,
        train: Sequence[Sequence[tuple[int, ...]]],
        photos: InputTable,
        captions: Sequence[Sequence[tuple[int, ...]]],
    ) -> None:
        self._decoder, self._sight, self._photos = decoder, sight, photos
        self._captions = captions[:PROBED]
        self._distinct = len({tuple(own) for own in captions}) > 1
        self._words_loss = _frequency_loss(train, self._captions, decoder.vocabulary)
        self._blind_loss = math.log(decoder.vocabulary)

    @torch.inference_mode()
    def probe(self) -> Probe:
        """Score the first validation photos; the decoder must be in evaluation mode."""
        count, device = len(self._captions), self._sight.device
        own, other, words, seen = np.zeros(count), np.zeros(count), np.zeros(count), []
        for batch in Batches(self._captions, photos_per_batch=TOGETHER, seed=0).epoch(0):
            targets = torch.from_numpy(batch.targets).to(device)
            for losses, photos in ((own, batch.photos), (other, (batch.photos + (count + 1) // 2) % count)):
                with Supermask.one_sample():
                    features = self._sight(self._photos, photos)
                    scores = self._decoder.scores(features, torch.from_numpy(batch.inputs).to(device), targets)
                losses[batch.photos] = _summed(scores, targets, len(photos))
                seen += [features.cpu()] if losses is own else []
            words[batch.photos] = (batch.targets >= 0).reshape(len(batch.photos), -1).sum(1)
        total = words.sum()
        return Probe(
            float(own.sum() / total), float(other.sum() / total), (other - own) / words, _spread(torch.cat(seen))
        )

    def signs(self, probe: Probe, captions: Mapping[str, str], moment: Moment) -> tuple[Sign, ...]:
        """Return the signs that the run does not learn; empty for a healthy run.

        Equal features are certain after the first epoch. All others are judged from the second epoch on, or at the end.
        Signs that a healthy run also shows in its first steps are judged after `FEW_STEPS`.

        Args:
            probe: The probe after this epoch.
            captions: Generated captions of the validation photos, by name.
            moment: State of the run.
        """
        count = len(self._captions)
        found = []
        if count > 1 and self._distinct and probe.spread < LEAST_SPREAD:
            what = f"the features of {count:,} validation photos are the same (relative spread {probe.spread:.1g})"
            found.append(("same_features", what))
        if moment.epoch > 0 or moment.last:
            found += self._late(probe, captions, moment)
        return tuple(Sign(kind, what, *self._reason(kind, probe, moment)) for kind, what in found)

    def _late(self, probe: Probe, captions: Mapping[str, str], moment: Moment) -> list[tuple[str, str]]:
        found = []
        if still := self._standing(probe, moment):
            found.append(("loss_stands_still", still))
        if moment.young or self._early(probe, moment):
            return found
        text, times = Counter(captions.values()).most_common(1)[0]
        if self._distinct and len(captions) >= FEWEST and times >= EQUAL_SHARE * len(captions):
            everything = "all" if times == len(captions) else f"{times:,} of"
            what = f'"{text}"' if text else "empty"
            found.append(
                (
                    "same_captions",
                    f"the captions of {everything} {len(captions):,} validation photos are the same: {what}",
                )
            )
        if self._distinct and len(self._captions) >= FEWEST and not probe.looks():
            losses = (
                f"{probe.loss:.3f} nats per word with their own features, {probe.swapped_loss:.3f} with those of others"
            )
            found.append(
                ("photos_unused", f"the model does not use the photos: the loss of their captions is {losses}")
            )
        return found

    def _early(self, probe: Probe, moment: Moment) -> bool:
        """Return whether a run with a usual learning rate may still be learning word order, before it uses the photos."""
        usual = LOW_RATE < moment.learning_rate < HIGH_RATE
        return usual and moment.step < EARLY_STEPS and probe.loss >= HARDLY * self._words_loss

    def _standing(self, probe: Probe, moment: Moment) -> str | None:
        before = moment.previous_loss
        if (
            moment.likelihood
            and before is not None
            and moment.epoch <= 2
            and abs(before - probe.loss) <= STILL * before
        ):
            return f"the loss stands still: {before:.4f} nats per word on val an epoch ago, {probe.loss:.4f} now"
        reached = self._words_loss if not moment.young else WORSE * self._blind_loss
        if moment.likelihood and not moment.started and probe.loss >= ONLY_WORDS * reached:
            return (
                f"the loss stands still: {probe.loss:.3f} nats per word on val; "
                f"word frequencies alone reach {self._words_loss:.3f}"
            )
        return None

    def _reason(self, kind: str, probe: Probe, moment: Moment) -> tuple[str, str]:
        """Return the most certain likely cause, and what to try."""
        rate = moment.learning_rate
        hardly = probe.loss >= HARDLY * self._words_loss
        stuck = kind == "loss_stands_still" or probe.loss >= ONLY_WORDS * self._words_loss
        if self._distinct and probe.spread < LEAST_SPREAD:
            return (
                "the encoder gives every photo the same features",
                "capprune data check finds photos that are the same or blank; check files of region features and encoder.*",
            )
        if rate <= LOW_RATE:
            return f"training.learning_rate={rate:g} is too low", f"training.learning_rate={USUAL_RATE:g}"
        if hardly and (rate >= HIGH_RATE or probe.loss > WORSE * self._blind_loss):
            return (
                f"training.learning_rate={rate:g} is too high",
                f"training.learning_rate={min(rate / 10, USUAL_RATE):g}",
            )
        if stuck and moment.step < FEW_STEPS:
            return f"the run has taken only {moment.step:,} steps", "a higher training.epochs, or more photos"
        if moment.sparsity is not None and hardly:
            return (
                f"pruning has removed {moment.sparsity:.1%} of the weights before they learned",
                "pruning.method=none first, then a lower pruning.sparsity or a higher training.epochs",
            )
        if stuck:
            first, second = (rate * 10, rate / 10) if rate < USUAL_RATE else (rate / 10, rate * 10)
            return (
                f"training.learning_rate={rate:g} does not suit this model",
                f"training.learning_rate={first:g}, then {second:g}",
            )
        few = f", or too few steps ({moment.step:,})" if moment.step < FEW_STEPS else ""
        return (
            f"captions that belong to other photos, or features that do not distinguish the photos{few}",
            "compare some photos with their captions in the data folder; then a higher training.epochs",
        )


def _summed(scores: Tensor, targets: Tensor, photos: int) -> npt.NDArray[np.float64]:
    """Return the cross-entropy of the captions of each photo, summed over words."""
    rows = torch.zeros(targets.shape, dtype=torch.float32, device=targets.device)
    rows[targets >= 0] = nn.functional.cross_entropy(scores.float(), targets[targets >= 0], reduction="none")
    found: npt.NDArray[np.float64] = rows.view(photos, -1).sum(1).cpu().double().numpy()
    return found


def _spread(features: Tensor) -> float:
    """Return the standard deviation of features `(P, ...)` over photos, relative to their mean size."""
    size = float(features.abs().mean())
    return float(features.std(0, unbiased=False).mean()) / size if size else 0.0


def _frequency_loss(
    train: Sequence[Sequence[tuple[int, ...]]], captions: Sequence[Sequence[tuple[int, ...]]], vocabulary: int
) -> float:
    """Return the cross-entropy per word under the word frequencies of the training captions, with add-one smoothing."""
    counts = np.ones(vocabulary)
    words = [word for own in train for caption in own for word in (*caption, END)]
    np.add.at(counts, words, 1)
    costs = -np.log(counts / counts.sum())
    return float(np.mean(costs[[word for own in captions for caption in own for word in (*caption, END)]]))
