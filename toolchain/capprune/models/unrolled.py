"""Linear layers that a recurrent decoder applies at every word: what does not wait for the word before is multiplied at once.

A layer reads the word, what is seen of the photo, and the state. The words of a whole caption are known in training, so their
part is one product before the first word; the gradients of the weight and of the words are one product each after the last.
In between, a word costs one product of few rows each way, with the weight laid out once a batch as that product wants it.

Shapes: T words, B captions, E embedding, K what is seen and the state side by side, N outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from capprune.models.additive import wide
from capprune.models.devices import on_cpu

Product = Callable[[Tensor], Tensor]


def product(weight: Tensor, rows: int) -> Product:
    """x W^T of a weight `(N, K)` for many x `(B, K)`, one after the other.

    Args:
        weight: In the type of the products; must not change between them.
        rows: B, for which the weight is laid out where the CPU's library can do that.
    """
    # what torch's own compiler uses, and no promise: hence the second way
    laid_out = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    fused = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    fits = on_cpu(weight) and weight.dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if fits and laid_out is not None and fused is not None:
        packed = laid_out(weight, rows)
        return lambda x: fused(x.contiguous(), packed, None, "none", [], "")
    return lambda x: F.linear(x, weight)


class Unrolled:
    """One layer over the words of one batch, forwards and then backwards.

    Args:
        weight: `(N, E + K)`.
        bias: `(N,)`.
        words: `(T, B, E)`; their type is that of the products.
    """

    def __init__(self, weight: Tensor, bias: Tensor, words: Tensor) -> None:
        kind, (steps, rows, width) = words.dtype, words.shape
        self._words = words
        self._weight_kind = weight.dtype
        self._of_words, self._inner = (part.to(kind).contiguous() for part in (weight[:, :width], weight[:, width:]))
        # (T, B, N), of the words alone until `forward` adds the rest
        self.sums = wide(F.linear(words, self._of_words, bias.to(kind)))
        self.inputs = words.new_empty(steps, rows, self._inner.shape[1])
        self._gradients = torch.empty_like(self.sums, dtype=kind)
        self._forth = product(self._inner, rows)

    def forward(self, t: int) -> Tensor:
        """The sums `(B, N)` of word t from its `inputs`, which have to be there; a view of `sums`, to work on in place."""
        return self.sums[t].add_(self._forth(self.inputs[t]))

    def backward(self, t: int, gradient: Tensor) -> Tensor:
        """The gradient of the inputs of word t `(B, K)` from that of its sums `(B, N)`."""
        return wide(self._gradients[t].copy_(gradient) @ self._inner)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of the weight, the bias and the words, once `backward` has been called for every word."""
        own = self._gradients.flatten(0, 1)
        width = self._words.shape[-1]
        weight = self.sums.new_empty(own.shape[1], width + self.inputs.shape[-1], dtype=self._weight_kind)
        weight[:, :width].copy_(own.t() @ self._words.flatten(0, 1))
        weight[:, width:].copy_(own.t() @ self.inputs.flatten(0, 1))
        words = (own @ self._of_words).view_as(self._words)
        return weight, own.sum(0, dtype=self.sums.dtype), words
