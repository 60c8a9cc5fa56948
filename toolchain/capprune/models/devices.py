"""Differences between kinds of devices: number formats and kernels.

The fast kernels of this package are written for a CPU: pieces of tensors that fit into its cache, weights laid out by oneDNN,
bytes for masks. They run if `on_cpu` returns True. Otherwise the plain form of the same computation runs, with operators
that every device supports. Tests compare both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from capprune_runtime.errors import CapPruneError

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
_kernels: list[Callable[..., Any]] = []  # functions of modules, by whose names they are called


def on_cpu(x: Tensor) -> bool:
    """Return whether the CPU kernels support a tensor."""
    return x.device.type == "cpu"


def cpu_kernel(function: Kernel) -> Kernel:
    """Mark a function that `torch.compile` must call as it is, because it uses NumPy or writes its gradient out."""
    _kernels.append(function)
    return function


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function compiled by `torch.compile`. It calls the CPU kernels and compiles the operators around them.

    Raises:
        CapPruneError: At its first call, if torch cannot compile it.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import, like all of torch's compiler

    for kernel in _kernels:
        outside: Any = torch.compiler.disable(kernel)  # type: ignore[no-untyped-call]
        setattr(sys.modules[kernel.__module__], kernel.__name__, outside)
    found = torch.compile(function, dynamic=True)

    def call(*arguments: Tensor) -> Tensor:
        try:
            result: Tensor = found(*arguments)
        except TorchDynamoException as error:
            raise CapPruneError(
                "torch.compile cannot compile this decoder",
                where="training.compile",
                found=str(error).strip().partition("\n")[0],
                hint="training.compile=false trains without it",
            ) from error
        return result

    return call


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which operators on this device keep the types of their arguments."""
    if not torch.amp.is_autocast_available(device.type):  # such as `meta`
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def precise(device: torch.device) -> torch.dtype:
    """Return the widest float type of a device: float64, or float32 on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64
