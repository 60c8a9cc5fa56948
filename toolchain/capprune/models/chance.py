"""Masks that are drawn at every step, from 16 random bits an entry: a quarter of the time that `torch.bernoulli` takes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from capprune.models.devices import on_cpu

BITS = 16


class Draws:
    """A stream of random bits on a CPU that starts at a number of torch's generator, so that a seed or a state decides it."""

    def __init__(self) -> None:
        self._bits = np.random.SFC64(int(torch.randint(2**62, ())))

    def uniform(self, shape: torch.Size) -> Tensor:
        """Every number of 16 bits with its sign, equally likely."""
        words = self._bits.random_raw(-(-shape.numel() * BITS // 64))
        bits: Tensor = torch.from_numpy(np.asarray(words).view(np.int16))[: shape.numel()].view(shape)
        return bits

    def keep(self, probability: Tensor) -> Tensor:
        """Ones with these float32 probabilities, to 1 in 65,536 exact, else zeros; 0 never stays, 1 always does.

        The probabilities are used up. What comes back is uint8: NumPy compares several times as fast as torch does, and torch
        reads bytes faster as numbers than as booleans.
        """
        shifted = probability.add_(self.uniform(probability.shape), alpha=-(2.0**-BITS))
        return torch.from_numpy(np.greater(shifted.numpy(), 0.5).view(np.uint8))


class Dropout(nn.Dropout):
    """`nn.Dropout`, quicker on a CPU: entries are zero with probability p, the others 1 / (1 - p) times as large."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        if not self.training or self.p == 0:
            return x
        if not on_cpu(x):
            return super().forward(x)
        kept = Draws().uniform(x.shape) >= round(self.p * 2**BITS) - 2 ** (BITS - 1)
        dropped: Tensor = x * kept.to(x.dtype).mul_(1 / (1 - self.p))
        return dropped
