"""An auxiliary loss on the objects in photos, which an encoder learns to name beside the captions.

A linear classifier over the features, averaged over the photo, predicts the labels of the captions file. It learns with the
model and is saved in its states, but it is not part of checkpoints or bundles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from capprune.config.run import RunConfig
from capprune.models.encoder import described
from capprune.training.batches import Batch
from capprune.training.objectives import Objective, Scores
from capprune_runtime.errors import ConfigError, DataError

PREFIX = "labels"  # of its tensors in a state


def named_too(
    objective: Objective, config: RunConfig, objects: Sequence[tuple[str, ...]], model: nn.Module
) -> tuple[Objective, ObjectLabels | None]:
    """Add the loss on object labels to an objective, if the config gives it a weight.

    Args:
        objective: The objective of the captions.
        config: The run's config.
        objects: Names of the objects in each training photo, empty if they are not known.
        model: The model with its masks and on its device. It gets the classifier, so that states hold it.

    Returns:
        The objective, and the classifier; None without one.

    Raises:
        ConfigError: The encoder does not learn, or the photos are read from shards.
        DataError: No photo has labels.
    """
    weight = config.training.objects.weight
    if not weight:
        return objective, None
    if config.encoder.train != "all" or config.data.shards is not None:
        raise ConfigError(
            "object labels are for an encoder that learns, and not read from shards",
            where="training.objects.weight",
            expected="encoder.train: all, and data.folder instead of data.shards",
            found=f"encoder.train: {config.encoder.train}" + ("" if config.data.shards is None else ", data.shards"),
            hint="training.objects.weight=0 trains without them",
        )
    labels = ObjectLabels(objects, described(config.encoder).channels)
    model.add_module(PREFIX, labels.to(next(model.parameters()).device))
    return WithObjects(objective, labels, weight), labels


def without_labels(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a model without those of its classifier."""
    return {name: value for name, value in tensors.items() if not name.startswith(f"{PREFIX}.")}


class ObjectLabels(nn.Module):
    """The classifier and the labels of the training photos.

    Args:
        objects: Names of the objects in each of P photos, empty if they are not known.
        channels: F, the channels of a feature.

    Attributes:
        classes: The names, sorted.

    Raises:
        DataError: No photo has labels.
    """

    def __init__(self, objects: Sequence[tuple[str, ...]], channels: int) -> None:
        super().__init__()
        self.classes = tuple(sorted({name for names in objects for name in names}))
        if not self.classes:
            raise DataError(
                "no training photo has object labels",
                where="training.objects.weight",
                expected="`objects`, a list of names, at the images of a captions file in Karpathy's layout",
                hint="training.objects.weight=0 trains without them",
            )
        place = {name: number for number, name in enumerate(self.classes)}
        self._present = np.zeros((len(objects), len(self.classes)), np.float32)
        for photo, names in enumerate(objects):
            self._present[photo, [place[name] for name in names]] = 1
        self.weight = nn.Parameter(torch.zeros(len(self.classes), channels))
        self.bias = nn.Parameter(torch.zeros(len(self.classes)))

    def loss(self, features: Tensor, photos: npt.NDArray[np.int64]) -> Tensor:
        """Return the mean cross-entropy over classes and labelled photos, in nats; 0 if no photo has labels.

        Args:
            features: (P, R, F) with a gradient.
            photos: (P) their places among the training photos.
        """
        present = torch.from_numpy(self._present[photos]).to(features.device)
        labelled = present.any(1)
        scores = nn.functional.linear(features[labelled].float().mean(1), self.weight, self.bias)
        found = nn.functional.binary_cross_entropy_with_logits(scores, present[labelled], reduction="sum")
        return found / max(1, int(labelled.sum()) * len(self.classes))


class WithObjects:
    """An objective, and the loss on object labels beside it.

    Args:
        objective: The objective of the captions.
        labels: The classifier.
        weight: Weight of its loss.
    """

    def __init__(self, objective: Objective, labels: ObjectLabels, weight: float) -> None:
        self._objective, self._labels, self._weight = objective, labels, weight
        self._last = 0.0

    def prepare(self, features: Tensor, batch: Batch) -> Batch:
        """See `Objective.prepare`."""
        return self._objective.prepare(features, batch)

    def loss(self, scores: Scores, features: Tensor, batch: Batch) -> Tensor:
        """Return the sum of both losses."""
        named = self._labels.loss(features, batch.photos)
        self._last = float(named.detach())
        return self._objective.loss(scores, features, batch) + self._weight * named

    def facts(self) -> dict[str, float]:
        """Return the objective's facts, and the last loss on labels before it is weighted."""
        return {**self._objective.facts(), "objects_loss": self._last}
