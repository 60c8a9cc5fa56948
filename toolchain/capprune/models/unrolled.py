"""Linear layers of a recurrent decoder over whole captions; parts that do not depend on earlier words are one product.

A layer reads the word, the attended context, and the state. In training, the words of a caption are known, so their part is
one product before the first word. The gradients of the weight and of the words are one product each after the last. In
between, each word needs one product of few rows per direction, with a weight that is packed once per batch.

Shapes: T words, B captions, E embedding, K context and state joined, N outputs.
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
    """Return a function that computes x W^T of a weight `(N, K)` for many x `(B, K)`.

    Args:
        weight: The weight, in the type of the products; must not change between them.
        rows: B, for which the weight is packed if the CPU's library supports it.
    """
    # used by torch's own compiler, but not a public API: hence the fallback
    laid_out = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    fused = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if on_cpu(weight) and _packs(weight.dtype) and laid_out is not None and fused is not None:
        packed = laid_out(weight, rows)
        return lambda x: fused(x.contiguous(), packed, None, "none", [], "")
    return lambda x: F.linear(x, weight)


def _packs(kind: torch.dtype) -> bool:
    """Return whether the CPU's library packs weights of a type; bfloat16 needs AVX-512 or newer instructions."""
    if kind is torch.bfloat16:
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return supported is not None and bool(supported())
    return kind is torch.float32 and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


class Unrolled:
    """Forward and backward pass of one layer over the words of one batch.

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
        # (T, B, N), the words' part until `forward` adds the rest
        self.sums = wide(F.linear(words, self._of_words, bias.to(kind)))
        self.inputs = words.new_empty(steps, rows, self._inner.shape[1])
        self._gradients = torch.empty_like(self.sums, dtype=kind)
        self._forth = product(self._inner, rows)

    def forward(self, t: int) -> Tensor:
        """Return the sums `(B, N)` of word t from its `inputs`, which must be set: a view of `sums`, to change in place."""
        return self.sums[t].add_(self._forth(self.inputs[t]))

    def backward(self, t: int, gradient: Tensor) -> Tensor:
        """Return the gradient of the inputs of word t, `(B, K)`, from that of its sums `(B, N)`."""
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
