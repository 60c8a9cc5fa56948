"""What a step minimises: people's words, a teacher's scores beside them, or the reward of whole captions."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from capprune.config.training import DistillationConfig, RewardConfig
from capprune.models.family import Decoder
from capprune.models.search import Walk, beam
from capprune.pruning.supermask import Supermask
from capprune.training.batches import IGNORED, Batch, with_captions
from capprune.training.encoder import Table
from capprune.training.reward import CaptionReward
from capprune.training.word_loss import word_loss
from capprune_runtime.bundle.vocabulary import END, PAD, START, UNKNOWN

Scores = Callable[[Tensor, Tensor, Tensor], Tensor]  # features, inputs, targets to the scores (words, V) of all targets


@dataclass(frozen=True)
class Sampled(Batch):
    """Sampled captions, n of each photo.

    Attributes:
        advantage: `(P * n,)`, how much more reward than its baseline each has.
        human: The batch that they were sampled for; None where people's words are not learned beside them.
    """

    advantage: Tensor
    human: Batch | None


class Objective(Protocol):
    """Anything that a step can minimise."""

    def prepare(self, features: Tensor, batch: Batch) -> Batch:
        """What is learned from in this step: the batch, or captions of the objective's own."""
        ...

    def loss(self, scores: Scores, features: Tensor, batch: Batch) -> Tensor:
        """A scalar with a gradient, for the batch that `prepare` gave."""
        ...

    def facts(self) -> dict[str, float]:
        """What the metrics should hold of the last step beside its loss."""
        ...


class CrossEntropy:
    """Mean cross-entropy of the next word, in nats."""

    def prepare(self, features: Tensor, batch: Batch) -> Batch:
        """The batch as it is."""
        return batch

    def loss(self, scores: Scores, features: Tensor, batch: Batch) -> Tensor:
        """In nats a word."""
        targets = _beside(features, batch.targets)
        return word_loss(scores(features, _beside(features, batch.inputs), targets), targets[targets >= 0])

    def facts(self) -> dict[str, float]:
        """None."""
        return {}


class Distillation(CrossEntropy):
    """Cross-entropy with people's words and with a teacher's scores, under teacher forcing of the same captions.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015): the soft part is taken at a
    temperature and multiplied by its square, so that its gradient keeps its size. With `sequences` the caption that the
    teacher's beam search finds for a photo is one more of its captions (Kim, Rush, "Sequence-Level Knowledge
    Distillation", 2016); it is searched when the photo comes up for the first time.

    Args:
        teacher: In evaluation mode, of the same vocabulary.
        seen: The features of the training photos that the teacher reads, of its own encoder.
        config: Weight, temperature, sequences.
        max_tokens: The teacher's longest caption, in words.
        products: Type of the teacher's products; None for that of its weights.
    """

    def __init__(
        self,
        teacher: Decoder,
        seen: Table,
        config: DistillationConfig,
        max_tokens: int,
        *,
        products: torch.dtype | None = None,
    ) -> None:
        self._teacher, self._seen = teacher, seen
        self._device = next(teacher.parameters()).device
        self._config, self._max_tokens, self._products = config, max_tokens, products
        self._said: dict[int, tuple[int, ...]] = {}  # by photo

    def prepare(self, features: Tensor, batch: Batch) -> Batch:
        """The batch, with the teacher's captions where they are learned too."""
        if not self._config.sequences:
            return batch
        new = [row for row, photo in enumerate(batch.photos.tolist()) if photo not in self._said]
        if new:
            with torch.inference_mode(), _autocast(self._device, self._products):
                encoded = self._teacher.encode(self._features(batch.photos[new]))
                tokens = beam(self._teacher, encoded, self._max_tokens).tokens
            self._said |= dict(zip(batch.photos[new].tolist(), tokens, strict=True))
        own = [self._said[photo] for photo in batch.photos.tolist()]
        return with_captions(batch, own)

    def loss(self, scores: Scores, features: Tensor, batch: Batch) -> Tensor:
        """In nats a word; the soft part is a divergence, 0 where both agree."""
        inputs, targets = _beside(features, batch.inputs), _beside(features, batch.targets)
        heat, share = self._config.temperature, self._config.weight
        with torch.no_grad():
            with _autocast(self._device, self._products):
                taught = self._teacher.scores(self._features(batch.photos), inputs, targets)
            taught = torch.log_softmax(taught.float() / heat, -1)
        found = scores(features, inputs, targets).float()
        soft = nn.functional.kl_div(torch.log_softmax(found / heat, -1), taught, reduction="batchmean", log_target=True)
        hard = nn.functional.cross_entropy(found, targets[targets >= 0])
        return share * heat**2 * soft + (1 - share) * hard

    def _features(self, photos: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self._seen[photos].astype(np.float32)).to(self._device)


class SelfCritical:
    """Policy gradient on sampled captions: those that score above their baseline become likelier.

    Rennie et al. (2017), with the mean of a photo's other samples as the baseline or the greedy caption. `<end>` is a
    word of sample and references alike: without it a caption is rewarded for stopping at "in front of a".

    Args:
        decoder: That samples; its masks are its own.
        config: Of the reward.
        reward: Of captions as ids, `<end>` not included.
        max_tokens: The longest sample, in words.
        products: Type of the products of sampling; None for that of the weights.
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
        """Sample captions of the batch's photos and weigh them against their baseline."""
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
        """-sum(log p * (reward - baseline)) / words, and the cross-entropy of people's words where that has a weight."""
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
        """The mean reward of the samples."""
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
    """A sampled caption and whether it ended by itself."""
    ids = row.tolist()
    return (tuple(ids[: ids.index(END)]), True) if END in ids else (tuple(ids), False)


def _beside(features: Tensor, ids: npt.NDArray[np.int64]) -> Tensor:
    """Ids on the device of the features."""
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
