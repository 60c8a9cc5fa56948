"""A pruning method in one file: random masks, which any other method has to beat. `pruning.method: random`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from capprune.config.methods import Method, StartsFrom
from capprune.pruning.unlearned import MaskPruner

METHOD = Method("random_pruning:RandomPruner", StartsFrom.EITHER)


class RandomPruner(MaskPruner):
    """The masks are chosen before the first step and stay."""

    def begin(self, loss: Callable[[], Tensor] | None) -> None:
        """Give every weight a random saliency; `pruning.scope`, blocks and `least_kept` work as for any method."""
        draw = torch.Generator().manual_seed(0)
        saliency = {name: torch.rand(weight.shape, generator=draw) for name, weight in self.masks.weights().items()}
        self.remove_smallest(saliency, self.config.sparsity)
