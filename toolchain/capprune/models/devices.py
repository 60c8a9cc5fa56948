"""What differs from one kind of device to another: which number formats and which kernels it has.

The fast kernels of this package are written for a CPU: pieces of tensors that stay in its cache, products laid out by oneDNN,
bytes for masks. They run where `on_cpu` says so. Everywhere else the plain form of the same computation runs, in operators
that every device has; tests hold both equal.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on_cpu(x: Tensor) -> bool:
    """Return whether the kernels for a CPU can take a tensor."""
    return x.device.type == "cpu"


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """While open, operators on this device keep the types of their arguments."""
    if not torch.amp.is_autocast_available(device.type):  # such as `meta`
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def precise(device: torch.device) -> torch.dtype:
    """Return the widest float of a device: float64, on Apple's GPUs float32."""
    return torch.float32 if device.type == "mps" else torch.float64
