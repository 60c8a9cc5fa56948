"""Parts of decoders with multi-head attention: normalisation, attention, and the layer parts that read the photo.

Everything is written in the operators that the runtimes of an export allow. A single query has a form of its own: products
with one row are slower there than elementwise operators.

Shapes: P photos, n captions of each, B = P n, N queries, M keys, R regions, T words, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from capprune.models.additive import wide
from capprune.models.chance import Dropout

HIDDEN = -1e9  # added to a score that softmax then makes exactly 0; weights of a file must be finite
WAVE = 10_000.0  # the longest wave of the table of positions, over 2 pi (Vaswani et al., 2017)
ROWS = 64  # a batch's words are filled up to a multiple of this: products of a shape that is new are slow to start


def normalised(x: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Return x `(..., D)` with mean 0 and variance 1 over the last axis."""
    x = wide(x)
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + epsilon)


class Norm(nn.Module):
    """Layer normalisation with a scale and a bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x `(..., D)`."""
        return normalised(x) * self.weight + self.bias


class UnbiasedNorm(Norm):
    """Layer normalisation by the unbiased standard deviation, as the reference implementation of ORT has it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x `(..., D)`."""
        x = wide(x)
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).sum(-1, keepdim=True) * (1 / (x.shape[-1] - 1))
        # 1e-12 changes nothing but the gradient at 0, which a region without any weight left would make NaN
        return centred / (torch.sqrt(variance + 1e-12) + 1e-6) * self.weight + self.bias


def in_heads(x: Tensor, heads: int) -> Tensor:
    """`(B, N, D)` → `(B, H, N, D / H)`."""
    return x.reshape(-1, x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, heads: int, bias: Tensor | None = None, dropout: Dropout | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention of many queries.

    Args:
        query: `(B, N, D)`.
        keys: `(B, M, D)`.
        values: `(B, M, D)`.
        heads: H.
        bias: Added to the scores, of a shape that broadcasts to `(B, H, N, M)`.
        dropout: Of the weights.

    Returns:
        What the heads read, `(B, N, D)`, and their weights, `(B, H, N, M)`.
    """
    scale = 1 / math.sqrt(query.shape[-1] // heads)
    scores = wide(torch.matmul(in_heads(query, heads), in_heads(keys, heads).transpose(2, 3))) * scale
    weights = torch.softmax(scores if bias is None else scores + bias, -1)
    kept = weights if dropout is None else dropout(weights)
    read = torch.matmul(kept.to(values.dtype), in_heads(values, heads))  # (B, H, N, D / H)
    return read.transpose(1, 2).reshape(-1, query.shape[1], query.shape[2]), weights


def attend_once(
    query: Tensor, keys: Tensor, values: Tensor, heads: int, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`attend` for one query each, in elementwise operators.

    Args:
        query: `(B, D)`.
        keys: `(B, M, D)`.
        values: `(B, M, D)`.
        heads: H.
        bias: `(1, M)`.

    Returns:
        What the heads read, `(B, D)`, and their mean weights, `(B, M)`.
    """
    count, width = keys.shape[1], query.shape[1]
    size = width // heads
    products = query.reshape(-1, 1, heads, size) * keys.reshape(-1, count, heads, size)
    scores = products.sum(-1).transpose(1, 2) * (1 / math.sqrt(size))  # (B, H, M)
    if bias is not None:
        scores = scores + bias.reshape(-1, 1, count)
    weights = torch.softmax(wide(scores), -1)
    read = (weights.transpose(1, 2).unsqueeze(-1) * values.reshape(-1, count, heads, size)).sum(1)
    return read.reshape(-1, width), weights.mean(1)


class SeeingLayer(nn.Module):
    """The parts of a decoder's layer that all families here share: attention over the photo and a feed-forward network.

    Both are normalised before and added to what goes in.

    Args:
        width: D.
        feed_forward: Units of the feed-forward network.
        heads: H.
        dropout: Of attention weights, hidden units and what is added.
        norm: The class of the normalisation.
    """

    def __init__(self, width: int, feed_forward: int, heads: int, dropout: float, norm: type[Norm] = Norm) -> None:
        super().__init__()
        self.heads = heads
        self.photo_norm, self.feed_norm = norm(width), norm(width)
        self.photo_query, self.photo_key = nn.Linear(width, width), nn.Linear(width, width)
        self.photo_value, self.photo_merge = nn.Linear(width, width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.dropout = Dropout(dropout)

    def look(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to the photo.

        Args:
            x: `(P, N, D)`, the words of all captions of a photo, or `(B, D)`, one word of each caption.
            keys: `(P, R, D)`.
            values: `(P, R, D)`.

        Returns:
            The next x, and the mean attention of the heads, `(P, N, R)` or `(B, R)`.
        """
        query = self.photo_query(self.photo_norm(x))
        if x.ndim == 2 and keys.shape[0] == x.shape[0]:
            read, weights = attend_once(query, keys, values, self.heads)
        else:
            rows = query.reshape(keys.shape[0], -1, query.shape[-1])
            read, weights = attend(rows, keys, values, self.heads, dropout=self.dropout)
            read, weights = read.reshape(query.shape), weights.mean(1).reshape(*query.shape[:-1], -1)
        return x + self.dropout(self.photo_merge(read)), weights

    def feed(self, x: Tensor) -> Tensor:
        """Return x `(..., D)` after the feed-forward network."""
        hidden = self.dropout(torch.relu(self.widen(self.feed_norm(x))))
        fed: Tensor = x + self.dropout(self.narrow(hidden))
        return fed


def sinusoids(count: int, width: int, wave: float = WAVE) -> Tensor:
    """Return the table of positions `(count, width)`: sine and cosine side by side, of waves of growing length."""
    frequencies = wave ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].float()


def spoken_scores(output: nn.Linear, x: Tensor, spoken: Tensor) -> Tensor:
    """Return the scores `(words, V)` of the words that count.

    Args:
        output: The output layer.
        x: `(B, T, D)`.
        spoken: `(B, T)`, whether a word counts: padding costs no output layer.
    """
    kept = x[spoken]
    filled = nn.functional.pad(kept, (0, 0, 0, -len(kept) % ROWS))
    scores: Tensor = output(filled)
    return scores[: len(kept)]
