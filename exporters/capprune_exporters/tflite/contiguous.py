"""Tensors of a module in row order while it is converted.

litert-torch 0.10 copies a constant that does not lie in row order, frees the copy, and takes a later copy of the same shape at
the same address for the same constant: of two transposed buffers the second silently gets the values of the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextlib.contextmanager
def contiguous_tensors(module: nn.Module) -> Iterator[None]:
    """Replace the parameters, buffers and other tensors of a module that do not lie in row order, until the end of the block.

    A tensor that several parts share stays shared. The module's own tensors are put back in the end.
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
