"""Training objectives: human captions, a teacher's scores besides them, or the reward of whole captions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from capprune.config.training import DistillationConfig, RewardConfig
from capprune.models.ensemble import ensemble_beam, mean_probabilities
from capprune.models.family import Decoder
from capprune.models.search import Walk
from capprune.pruning.supermask import Supermask
from capprune.training.batches import IGNORED, Batch, with_captions
from capprune.training.encoder import InputTable
from capprune.training.reward import CaptionReward
from capprune.training.word_loss import word_loss
from capprune_runtime.bundle.vocabulary import END, PAD, START, UNKNOWN

Scores = Callable[[Tensor, Tensor, Tensor], Tensor]  # features, inputs, targets to the scores (words, V) of all targets


@dataclass(frozen=True)
class Sampled(Batch):
    """Sampled captions, n of each photo.

    Attributes:
        advantage: `(P * n,)`, reward of each caption minus its baseline.
        human: The batch of human captions of the same photos; None if they are not part of the loss.
    """

    advantage: Tensor
    human: Batch | None


class Objective(Protocol):
    """Interface of objectives that a training step minimises."""

    def prepare(self, features: Tensor, batch: Batch) -> Batch:
        """Return the captions of this step: the batch itself, or captions that the objective generates."""
        ...

    def loss(self, scores: Scores, features: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar with a gradient, of a batch from `prepare`."""
        ...

    def facts(self) -> dict[str, float]:
        """Return facts about the last step for the metrics, besides its loss."""
        ...


@dataclass(frozen=True)
class Teacher:
    """A trained model whose scores are learned.

    Attributes:
        decoder: Its decoder in evaluation mode, with the vocabulary of the run.
        seen: Its features of the training photos, from its own encoder.
    """

    decoder: Decoder
    seen: InputTable


class CrossEntropy:
    """Mean cross-entropy of the next word, in nats."""

    def prepare(self, features: Tensor, batch: Batch) -> Batch:
        """Return the batch unchanged."""
        return batch

    def loss(self, scores: Scores, features: Tensor, batch: Batch) -> Tensor:
        """Return the loss in nats per word."""
        targets = _beside(features, batch.targets)
        return word_loss(scores(features, _beside(features, batch.inputs), targets), targets[targets >= 0])

    def facts(self) -> dict[str, float]:
        """Return no facts."""
        return {}


class Distillation(CrossEntropy):
    """Cross-entropy with human captions and with teachers' scores, under teacher forcing of the same captions.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015): the soft part uses a temperature and
    is multiplied by its square, so that the gradient keeps its size. The probabilities of several teachers are averaged
    at every word. With `sequences`, the teachers' beam-search caption of a photo is added to its captions (Kim, Rush,
    "Sequence-Level Knowledge Distillation", 2016). It is generated when the photo is used for the first time.

    Args:
        teachers: At least one.
        config: Weight, temperature, sequences.
        max_tokens: The teachers' longest caption, in words.
        no_repeat_ngram: Length of the sequences of tokens that the teachers' captions hold at most once.
        products: Type of the teachers' matrix products; None for the type of their weights.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        config: DistillationConfig,
        max_tokens: int,
        *,
        no_repeat_ngram: int = 0,
        products: torch.dtype | None = None,
    ) -> None:
        self._teachers, self._no_repeat = tuple(teachers), no_repeat_ngram
        self._device = next(self._teachers[0].decoder.parameters()).device
        self._config, self._max_tokens, self._products = config, max_tokens, products
        self._said: dict[int, tuple[int, ...]] = {}  # by photo

    def prepare(self, features: Tensor, batch: Batch) -> Batch:
        """Return the batch, with the teachers' captions if they are learned too."""
        if not self._config.sequences:
            return batch
        new = [row for row, photo in enumerate(batch.photos.tolist()) if photo not in self._said]
        if new:
            with torch.inference_mode(), _autocast(self._device, self._products):
                seen = self._features(batch.photos[new])
                decoders = [teacher.decoder for teacher in self._teachers]
                encoded = [decoder.encode(own) for decoder, own in zip(decoders, seen, strict=True)]
                tokens = ensemble_beam(decoders, encoded, self._max_tokens, no_repeat_ngram=self._no_repeat).tokens
            self._said |= dict(zip(batch.photos[new].tolist(), tokens, strict=True))
        own = [self._said[photo] for photo in batch.photos.tolist()]
        return with_captions(batch, own)

    def loss(self, scores: Scores, features: Tensor, batch: Batch) -> Tensor:
        """Return the loss in nats per word; its soft part is a divergence, 0 for equal distributions."""
        inputs, targets = _beside(features, batch.inputs), _beside(features, batch.targets)
        heat, share = self._config.temperature, self._config.weight
        with torch.no_grad():
            seen = self._features(batch.photos)
            taught = mean_probabilities(
                self._taught(teacher, own, inputs, targets) for teacher, own in zip(self._teachers, seen, strict=True)
            )
        found = scores(features, inputs, targets).float()
        soft = nn.functional.kl_div(torch.log_softmax(found / heat, -1), taught, reduction="batchmean", log_target=True)
        hard = nn.functional.cross_entropy(found, targets[targets >= 0])
        return share * heat**2 * soft + (1 - share) * hard

    def _taught(self, teacher: Teacher, features: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return a teacher's log-probabilities `(words, V)` at the temperature."""
        with _autocast(self._device, self._products):
            scores = teacher.decoder.scores(features, inputs, targets)
        return torch.log_softmax(scores.float() / self._config.temperature, -1)

    def _features(self, photos: npt.NDArray[np.int64]) -> list[Tensor]:
        """Return the features of photos for each teacher. Teachers with one table share them."""
        tables = {id(teacher.seen): teacher.seen for teacher in self._teachers}
        read = {
            key: torch.from_numpy(table[photos].astype(np.float32)).to(self._device) for key, table in tables.items()
        }
        return [read[id(teacher.seen)] for teacher in self._teachers]


class SelfCritical:
    """Policy gradient on sampled captions: it raises the likelihood of captions with more reward than their baseline.

    Rennie et al. (2017). The baseline is the mean reward of the photo's other samples, or the reward of the greedy
    caption. `<end>` counts as a word of samples and references. Without it, captions that stop at "in front of a" are
    rewarded.

    Args:
        decoder: Decoder that generates the samples, with its own masks.
        config: The reward's config.
        reward: Returns the rewards of captions as ids, without `<end>`.
        max_tokens: The longest sample, in words.
        products: Type of the matrix products of sampling; None for the type of the weights.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: RewardConfig,
        reward: CaptionReward,
        max_tokens: int,
        *,
        products: torch.dtype | None = None,
    ) -> None:
        self._decoder, self._config, self._reward, self._max_tokens = decoder, config, reward, max_tokens
        self._products = products
        self.mean_reward = math.nan

    def prepare(self, features: Tensor, batch: Batch) -> Sampled:
        """Sample captions of the batch's photos and compute their advantages over the baseline."""
        count = self._config.samples
        words = self._sample(features, count)  # (P * n, T)
        captions = [_spoken(row) for row in words]
        photos = np.repeat(batch.photos, count)
        rewards = self._reward(photos, captions).reshape(-1, count)  # (P, n)
        self.mean_reward = float(rewards.mean())
        if self._config.baseline == "greedy":
            greedy = [_spoken(row) for row in self._sample(features, 1, greedy=True)]
            baseline = self._reward(batch.photos, greedy)[:, None]
        else:
            baseline = (rewards.sum(1, keepdims=True) - rewards) / (count - 1)
        advantage = torch.from_numpy((rewards - baseline).reshape(-1)).float().to(features.device)
        human = batch if self._config.cross_entropy else None
        return Sampled(batch.photos, *_padded(captions, self._max_tokens), advantage, human)

    def loss(self, scores: Scores, features: Tensor, batch: Batch) -> Tensor:
        """Return -sum(log p * (reward - baseline)) / words, plus the weighted cross-entropy of human captions."""
        assert isinstance(batch, Sampled)
        targets = _beside(features, batch.targets)
        spoken = targets >= 0
        found = scores(features, _beside(features, batch.inputs), targets).float()
        found = found.index_fill(1, _suppressed(features), -torch.inf)
        picked = -nn.functional.cross_entropy(found, targets[spoken], reduction="none")
        weights = batch.advantage.unsqueeze(1).expand_as(targets)[spoken]
        criticised = -(picked * weights).sum() / len(picked)
        if batch.human is None:
            return criticised
        return criticised + self._config.cross_entropy * CrossEntropy().loss(scores, features, batch.human)

    def facts(self) -> dict[str, float]:
        """Return the mean reward of the samples."""
        return {"reward": self.mean_reward}

    @torch.no_grad()
    def _sample(self, features: Tensor, count: int, *, greedy: bool = False) -> npt.NDArray[np.int64]:
        was_training = self._decoder.training
        self._decoder.eval()
        device = features.device
        with Supermask.one_sample(), _autocast(device, self._products):
            walk = Walk(self._decoder, self._decoder.encode(features), count)
            token = torch.full((len(features) * count,), START, device=device)
            over = torch.zeros(len(token), dtype=torch.bool, device=device)
            words = torch.full((len(token), self._max_tokens), END, device=device)
            for t in range(self._max_tokens):
                scores = walk.step(token).float().index_fill(1, _suppressed(features), -torch.inf)
                likely = torch.softmax(scores, -1)
                token = likely.argmax(-1) if greedy else torch.multinomial(likely, 1).squeeze(1)
                token = torch.where(over, END, token)
                words[:, t] = token
                over |= token == END
                if bool(over.all()):
                    break
        self._decoder.train(was_training)
        found: npt.NDArray[np.int64] = words.cpu().numpy()
        return found


def _spoken(row: npt.NDArray[np.int64]) -> tuple[tuple[int, ...], bool]:
    """Return a sampled caption, and whether it ended with `<end>`."""
    ids = row.tolist()
    return (tuple(ids[: ids.index(END)]), True) if END in ids else (tuple(ids), False)


def _beside(features: Tensor, ids: npt.NDArray[np.int64]) -> Tensor:
    """Return ids on the device of the features."""
    return torch.from_numpy(ids).to(features.device)


def _suppressed(features: Tensor) -> Tensor:
    return torch.tensor((PAD, START, UNKNOWN), device=features.device)


def _autocast(device: torch.device, products: torch.dtype | None) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, products, enabled=products is not None)


def _padded(
    captions: list[tuple[tuple[int, ...], bool]], max_tokens: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    length = min(max_tokens, max(len(ids) for ids, _ in captions) + 1)
    inputs = np.full((len(captions), length), END, dtype=np.int64)
    targets = np.full((len(captions), length), IGNORED, dtype=np.int64)
    inputs[:, 0] = START
    for row, (ids, ended) in enumerate(captions):
        words = (*ids, END) if ended else ids
        inputs[row, 1 : len(words)] = words[: length - 1][: len(words) - 1]
        targets[row, : len(words)] = words
    return inputs, targets
