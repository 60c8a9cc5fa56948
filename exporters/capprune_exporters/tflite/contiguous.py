"""Make the tensors of a module contiguous while it is converted.

litert-torch 0.10 copies a non-contiguous constant and frees the copy. It then mistakes a later copy of the same shape
at the same address for the same constant. So the second of two transposed buffers silently gets the values of the
first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextlib.contextmanager
def contiguous_tensors(module: nn.Module) -> Iterator[None]:
    """Replace non-contiguous parameters, buffers and other tensors of a module, until the end of the block.

    Shared tensors stay shared. The module's own tensors are restored at the end.
    """
    from torch import Tensor, nn

    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    copies: dict[int, Tensor] = {}
    try:
        for part in module.modules():
            places: tuple[dict[str, Any], ...] = (part._parameters, part._buffers, vars(part))
            for place in places:
                for name, tensor in list(place.items()):
                    if not isinstance(tensor, Tensor) or tensor.is_contiguous():
                        continue
                    if id(tensor) not in copies:
                        copy = tensor.detach().contiguous()
                        is_parameter = isinstance(tensor, nn.Parameter)
                        copies[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
                    replaced.append((place, name, tensor))
                    place[name] = copies[id(tensor)]
        yield
    finally:
        for place, name, tensor in replaced:
            place[name] = tensor
