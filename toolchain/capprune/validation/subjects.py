"""How rare the subjects of a photo are among known photos, by the classes that EfficientNet-Lite0 tells apart.

The published network tells 1,000 classes of ImageNet apart. A few of them are frequent among the known photos, and most
hardly occur. The rarity of a class is minus the logarithm of its frequency. That of a photo is the sum of its class scores,
each times the rarity of the class: a linear function of the network's mean features, which another encoder can be fitted to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from capprune.models.efficientnet_lite import EfficientNetLite0
from capprune_runtime.photo import normalise

SIZE: Final = 224  # of its photos, pixels
SELDOM: Final = 1e-3  # added to each frequency, so that classes that never occur are not infinitely rare

Values = NDArray[np.float64]


def mean_features(squares: Iterable[NDArray[np.uint8]]) -> Values:
    """Return the features (N, 1280) of photos (SIZE, SIZE, 3), averaged over the grid.

    Raises:
        MissingExtra: The published weights are not installed.
    """
    network = EfficientNetLite0.pretrained()
    with torch.inference_mode():
        found = [
            network(torch.from_numpy(normalise(one)).permute(0, 3, 1, 2)).mean(dim=(0, 2, 3)).double().numpy()
            for one in squares
        ]
    return np.array(found)


def rarity(features: Values) -> Values:
    """Return how rare the subjects of each of N photos are among all of them, up to a constant.

    Args:
        features: (N, 1280), from `mean_features`.

    Returns:
        (N), in nats times units of a class score.
    """
    weight, bias = EfficientNetLite0.published_classifier()
    scores = features @ weight.T + bias
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    frequency = (likely / likely.sum(axis=1, keepdims=True)).mean(axis=0)
    rare = -np.log(frequency + SELDOM)
    return np.asarray(features @ (weight.T @ (rare - rare.mean())), np.float64)
