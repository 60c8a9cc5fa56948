"""The decoder's recurrence over whole captions with an explicit gradient: one node in autograd's graph, not 40 per word.

The computation is that of `SoftAttention.step` up to the new state. The values that the backward pass needs are stored in a few
tensors over all words. Sums over words are one product at the end. Products have the type of `words`, all else is float32 (or
wider).

Shapes: T words, B captions, P photos, n = B / P adjacent captions of a photo, R regions, E embedding, H hidden,
A attention, C context.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from capprune.models.additive import bend, plain_scores, unbend, wide
from capprune.models.cells import lstm
from capprune.models.devices import cpu_kernel, no_autocast, on_cpu
from capprune.models.unrolled import Unrolled, product


class Weights(NamedTuple):
    """Weights of the layers that run for every word."""

    query: Tensor  # (A, H)
    score: Tensor  # (1, A)
    rnn: Tensor  # (4H or 2H, E + C + H)
    rnn_bias: Tensor
    candidate: Tensor | None = None  # (H, E + C + H), of a GRU
    candidate_bias: Tensor | None = None


def recur(words: Tensor, keys: Tensor, values: Tensor, h: Tensor, dropped: Tensor | None, weights: Weights) -> Tensor:
    """Return the hidden states after every word.

    Args:
        words: Embedded words, `(T, B, E)`.
        keys: `(P, R, A)`.
        values: `(P, R, C)`.
        h: State before the first word, `(B, H)`.
        dropped: Dropout mask of the attention, `(T, P, n, R)`.
        weights: Weights of an LSTM, or with `candidate` of a GRU.

    Returns:
        `(T, B, H)`, of the type of `words`.
    """
    if not on_cpu(words):
        return plain_recur(words, keys, values, h, dropped, weights)
    return _one_node(words, keys, values, h, dropped, weights)


@cpu_kernel
def _one_node(
    words: Tensor, keys: Tensor, values: Tensor, h: Tensor, dropped: Tensor | None, weights: Weights
) -> Tensor:
    hidden: Tensor = _Recurrence.apply(words, keys, values, h, dropped, *weights)  # type: ignore[no-untyped-call]
    return hidden


def plain_recur(
    words: Tensor, keys: Tensor, values: Tensor, h: Tensor, dropped: Tensor | None, weights: Weights
) -> Tensor:
    """Compute `recur` with plain operators, on every device."""
    kind, photos = words.dtype, len(keys)
    with no_autocast(words.device):
        w = Weights(*(None if one is None else one.to(kind) for one in weights))  # type: ignore[arg-type]
        values, h, hidden = values.to(kind), wide(h), []
        c = torch.zeros_like(h)
        for t, word in enumerate(words):
            query = F.linear(h.to(kind), w.query).view(photos, -1, keys.shape[-1])  # (P, n, A)
            attention = torch.softmax(plain_scores(keys, query, weights.score), -1)  # (P, n, R)
            used = attention if dropped is None else attention * dropped[t]
            seen = torch.cat([word, torch.bmm(used.to(kind), values).flatten(0, 1)], 1)
            sums = wide(F.linear(torch.cat([seen, h.to(kind)], 1), w.rnn, w.rnn_bias))
            if w.candidate is None:
                h, c = lstm(sums, c)
            else:
                reset, update = torch.sigmoid(sums).chunk(2, 1)
                inputs = torch.cat([seen, (reset * h).to(kind)], 1)
                h = torch.lerp(torch.tanh(wide(F.linear(inputs, w.candidate, w.candidate_bias))), h, update)
            hidden.append(h.to(kind))
    return torch.stack(hidden)


class _Recurrence(Function):
    @staticmethod
    def forward(
        ctx: Any,
        words: Tensor,
        keys: Tensor,
        values: Tensor,
        h: Tensor,
        dropped: Tensor | None,
        *weights: Tensor | None,
    ) -> Tensor:
        ctx.dtypes = [None if one is None else one.dtype for one in (words, keys, values, h, dropped, *weights)]
        with torch.autocast("cpu", enabled=False):
            ctx.run = run = _Run(words, keys, values, h, dropped, Weights(*weights))  # type: ignore[arg-type]
            return run.forward()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        run, ctx.run = ctx.run, None  # used by a single backward pass
        with torch.autocast("cpu", enabled=False):
            found = run.backward(gradient)
        return tuple(None if one is None else one.to(kind) for one, kind in zip(found, ctx.dtypes, strict=True))


class _Cell(Protocol):
    """A recurrent cell; h is float32, `(B, H)`."""

    def forward(self, t: int, context: Tensor, h: Tensor) -> Tensor:
        """Return the new h."""
        ...

    def backward(self, t: int, of_h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of context and old h from that of the new h; called for the last word first."""
        ...

    def gradients(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Return the gradients of the words, of rnn and its bias, and of candidate and its bias."""
        ...


class _Run:
    """Forward and backward pass of one batch."""

    def __init__(
        self, words: Tensor, keys: Tensor, values: Tensor, h: Tensor, dropped: Tensor | None, weights: Weights
    ) -> None:
        self._first = wide(h)
        self._hidden = words.new_empty(
            len(words) + 1, *h.shape
        )  # before the first word and after each; products read it
        self._attention = _Attention(len(words), keys, values.to(words.dtype), dropped, weights, self._hidden)
        self._cell: _Cell = _Lstm(weights, words, h) if weights.candidate is None else _Gru(weights, words, h)

    def forward(self) -> Tensor:
        h, hidden = self._first, self._hidden
        hidden[0].copy_(h)
        for t in range(len(hidden) - 1):
            h = self._cell.forward(t, self._attention.forward(t), h)
            hidden[t + 1].copy_(h)
        return hidden[1:]

    def backward(self, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_h = torch.zeros_like(self._first)
        for t in reversed(range(len(gradient))):
            of_context, of_h = self._cell.backward(t, of_h.add_(gradient[t]))
            of_h = of_h.add_(self._attention.backward(t, of_context))
        words, own = self._cell.gradients()
        keys, values, query, score = self._attention.gradients()
        return words, keys, values, of_h, None, query, score, *own


class _Attention:
    """Additive attention at every word.

    Args:
        steps: T.
        keys: `(P, R, A)`.
        values: `(P, R, C)`, in the type of the products.
        dropped: Dropout mask of the attention.
        weights: Weights of query and score.
        hidden: `(T + 1, B, H)`, filled by the run word by word.
    """

    def __init__(
        self, steps: int, keys: Tensor, values: Tensor, dropped: Tensor | None, weights: Weights, hidden: Tensor
    ) -> None:
        self._keys, self._values, self._dropped, self._hidden = wide(keys), values, dropped, hidden
        query, self._v = weights.query.to(values.dtype), wide(weights.score)[0]
        photos, regions, width = keys.shape
        captions = hidden.shape[1] // photos
        self._query, self._forth = query, product(query, hidden.shape[1])
        # one tensor per word: the C library reuses freed blocks of some megabytes for the next batch, but not larger ones
        self._bent = [self._keys.new_empty(photos, captions, regions, width) for _ in range(steps)]
        self._attention = self._keys.new_empty(steps, photos, captions, regions)
        self._used = values.new_empty(photos, steps, captions, regions)
        self._of_context = values.new_empty(photos, steps, captions, values.shape[-1])
        self._of_query = values.new_empty(steps, hidden.shape[1], width)
        self._of_keys, self._of_v = torch.zeros_like(self._keys), torch.zeros_like(self._v)

    def forward(self, t: int) -> Tensor:
        """Return the context `(B, C)` of word t, in the type of the products."""
        photos, captions, _, width = self._bent[t].shape
        query = wide(self._forth(self._hidden[t])).view(photos, captions, width)
        scores = bend(self._keys, query, self._v, self._bent[t])
        attention = torch.softmax(scores, -1, out=self._attention[t])
        used = self._used[:, t].copy_(attention if self._dropped is None else attention * self._dropped[t])
        return torch.bmm(used, self._values).flatten(0, 1)

    def backward(self, t: int, of_context: Tensor) -> Tensor:
        """Return the gradient of h before word t, `(B, H)`, from that of the context."""
        photos, captions, _, width = self._bent[t].shape
        above = self._of_context[:, t].copy_(of_context.view(photos, captions, -1))
        of_used = wide(torch.bmm(above, self._values.transpose(1, 2)))
        pull = self._attention[t] * (of_used if self._dropped is None else of_used * self._dropped[t])
        of_scores = torch.addcmul(pull, self._attention[t], pull.sum(-1, keepdim=True), value=-1)
        of_query = unbend(self._bent[t], of_scores, self._v, self._of_keys, self._of_v)
        return wide(self._of_query[t].copy_(of_query.view(-1, width)) @ self._query)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of keys, values, query and score."""
        values = torch.bmm(self._used.flatten(1, 2).transpose(1, 2), self._of_context.flatten(1, 2))
        query = self._of_query.flatten(0, 1).t() @ self._hidden[:-1].flatten(0, 1)
        return self._of_keys.mul_(self._v), values, query, self._of_v.unsqueeze(0)


class _Lstm:
    """c' = forget c + into cell, h' = out tanh(c'); rows of the weight in the order into, forget, cell, out."""

    def __init__(self, weights: Weights, words: Tensor, h: Tensor) -> None:
        self._layer = Unrolled(weights.rnn, weights.rnn_bias, words)
        self._cells = self._layer.sums.new_zeros(len(words) + 1, *h.shape)  # before the first word, after each
        self._bent = torch.empty_like(self._cells[1:])  # tanh(c')
        self._of_cell = torch.zeros_like(self._cells[0])

    def forward(self, t: int, context: Tensor, h: Tensor) -> Tensor:
        width, layer = h.shape[1], self._layer
        torch.cat([context, h.to(context.dtype)], 1, out=layer.inputs[t])
        gates = layer.forward(t)
        gates[:, : 2 * width].sigmoid_()
        gates[:, 2 * width : 3 * width].tanh_()
        gates[:, 3 * width :].sigmoid_()
        into, forget, cell, out = gates.chunk(4, 1)
        after = torch.mul(forget, self._cells[t], out=self._cells[t + 1]).addcmul_(into, cell)
        return out * torch.tanh(after, out=self._bent[t])

    def backward(self, t: int, of_h: Tensor) -> tuple[Tensor, Tensor]:
        gates, bent, of_cell, width = self._layer.sums[t], self._bent[t], self._of_cell, of_h.shape[1]
        into, forget, cell, out = gates.chunk(4, 1)
        pull = of_h * out
        of_cell.add_(pull).sub_(pull.mul_(bent).mul_(bent))  # through tanh(c'): 1 - tanh²
        of_gates = torch.addcmul(gates, gates, gates, value=-1)  # s (1 - s), of the sigmoids
        torch.addcmul(gates.new_ones(()), cell, cell, value=-1, out=of_gates[:, 2 * width : 3 * width])
        for own, others in zip(of_gates.chunk(4, 1), (cell, self._cells[t], into, None), strict=True):
            own.mul_(of_h * bent if others is None else of_cell * others)
        of_cell.mul_(forget)
        of_inputs = self._layer.backward(t, of_gates)
        return of_inputs[:, :-width], of_inputs[:, -width:]

    def gradients(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        weight, bias, words = self._layer.gradients()
        return words, (weight, bias, None, None)


class _Gru:
    """h' = update h + (1 - update) candidate, which reads reset h; rows of the weight in the order reset, update."""

    def __init__(self, weights: Weights, words: Tensor, h: Tensor) -> None:
        assert weights.candidate is not None and weights.candidate_bias is not None
        self._layer = Unrolled(weights.rnn, weights.rnn_bias, words)
        self._candidate = Unrolled(weights.candidate, weights.candidate_bias, words)
        self._states = self._layer.sums.new_empty(len(words), *h.shape)  # before each word

    def forward(self, t: int, context: Tensor, h: Tensor) -> Tensor:
        self._states[t].copy_(h)
        torch.cat([context, h.to(context.dtype)], 1, out=self._layer.inputs[t])
        reset, update = self._layer.forward(t).sigmoid_().chunk(2, 1)
        torch.cat([context, (reset * h).to(context.dtype)], 1, out=self._candidate.inputs[t])
        candidate = self._candidate.forward(t).tanh_()
        return torch.lerp(candidate, h, update)

    def backward(self, t: int, of_h: Tensor) -> tuple[Tensor, Tensor]:
        h, candidate, width = self._states[t], self._candidate.sums[t], of_h.shape[1]
        gates = self._layer.sums[t]
        reset, update = gates.chunk(2, 1)
        slope = torch.addcmul(candidate.new_ones(()), candidate, candidate, value=-1)
        below = self._candidate.backward(t, slope.mul_(of_h * (1 - update)))
        of_candidate_context, of_reset_h = below[:, :-width], below[:, -width:]
        of_gates = torch.addcmul(gates, gates, gates, value=-1)
        of_gates[:, :width].mul_(of_reset_h * h)
        of_gates[:, width:].mul_(of_h * (h - candidate))
        of_inputs = self._layer.backward(t, of_gates)
        of_old = torch.addcmul(of_inputs[:, -width:], of_h, update).addcmul_(of_reset_h, reset)
        return of_inputs[:, :-width] + of_candidate_context, of_old

    def gradients(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        weight, bias, words = self._layer.gradients()
        candidate, candidate_bias, more = self._candidate.gradients()
        return words + more, (weight, bias, candidate, candidate_bias)
