"""Modules without memory or values, for the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

RANDOM_FILLS = frozenset({Tensor.normal_, Tensor.uniform_})


class _WithoutValues(TorchFunctionMode):
    """Mode in which initial values are not drawn. Without memory torch draws them with its compiler, 2.5 s to import."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in RANDOM_FILLS or getattr(func, "__module__", None) == torch.nn.init.__name__:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build the modules of this block on the meta device, and leave out their initial values."""
    with torch.device("meta"), _WithoutValues():
        yield
