"""The LSTM cell that several families share, and its initialisation.

Rows of the weight are in the order input, forget, cell, output, as in PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capprune.models.additive import wide

FORGET_BIAS = 1.0  # opens the forget gate initially, so that gradients flow through time from the first step


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the new h and c, each `(B, H)`, from the pre-activations of the four gates.

    Args:
        gates: `(B, 4H)`.
        c: `(B, H)`, the previous cell state.
    """
    into, forget, cell, out = wide(gates).chunk(4, -1)  # only products use the narrow type
    c = torch.sigmoid(forget) * c + torch.sigmoid(into) * torch.tanh(cell)
    return (torch.sigmoid(out) * torch.tanh(c)).to(gates.dtype), c


@torch.no_grad()
def open_forget_gates(layer: nn.Linear) -> None:
    """Set the bias of the forget gates in an LSTM's layer."""
    hidden = layer.out_features // 4
    layer.bias[hidden : 2 * hidden] = FORGET_BIAS
