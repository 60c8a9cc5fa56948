"""The LSTM cell that several families share, and its initial weights.

Rows of the weight stand in the order input, forget, cell, output, as in PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capprune.models.additive import wide

FORGET_BIAS = 1.0  # the gate starts open, so that gradients reach back from the first step on


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the new h and c, each `(B, H)`, of the sums of the four gates.

    Args:
        gates: `(B, 4H)`.
        c: `(B, H)`, before.
    """
    into, forget, cell, out = wide(gates).chunk(4, -1)  # what products are not made of stays float32
    c = torch.sigmoid(forget) * c + torch.sigmoid(into) * torch.tanh(cell)
    return (torch.sigmoid(out) * torch.tanh(c)).to(gates.dtype), c


@torch.no_grad()
def open_forget_gates(layer: nn.Linear) -> None:
    """Set the bias of the forget gates of an LSTM's layer."""
    hidden = layer.out_features // 4
    layer.bias[hidden : 2 * hidden] = FORGET_BIAS
