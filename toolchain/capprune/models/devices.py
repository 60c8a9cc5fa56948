"""Differences between kinds of devices: number formats and kernels.

The fast kernels of this package are written for a CPU: pieces of tensors that fit into its cache, weights laid out by oneDNN,
bytes for masks. They run if `on_cpu` returns True. Otherwise the plain form of the same computation runs, with operators
that every device supports. Tests compare both.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_cpu(x: Tensor) -> bool:
    """Return whether the CPU kernels support a tensor."""
    return x.device.type == "cpu"


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which operators on this device keep the types of their arguments."""
    if not torch.amp.is_autocast_available(device.type):  # such as `meta`
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def precise(device: torch.device) -> torch.dtype:
    """Return the widest float type of a device: float64, or float32 on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64
