"""Parts of decoders with multi-head attention: sizes, normalisation, attention, and the layer parts that read the photo.

The code uses only operators that the runtimes of an export support. A single query has a separate form, because products
with one row are slower there than elementwise operators.

Shapes: P photos, n captions of each, B = P n, N queries, M keys, R regions, T words, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from capprune.config.decoder import DecoderConfig
from capprune.config.decoder import Dropout as DropoutConfig
from capprune.config.tree import MOST_UNITS
from capprune.models.additive import wide
from capprune.models.chance import Dropout
from capprune.models.family import Tensors
from capprune_runtime.bundle.interface import TensorSpec

HIDDEN = -1e9  # added to masked scores, so that softmax gives exactly 0; weights in a file must be finite
WAVE = 10_000.0  # the longest wave of the position table, divided by 2 pi (Vaswani et al., 2017)
ROWS = 64  # a batch's words are filled up to a multiple of this: products of a shape that is new are slow to start


class TransformerDropout(DropoutConfig):
    """Cut to a third while masks are sampled."""

    layer: float = Field(
        default=0.1, ge=0, lt=1, description="dropout rate of attention weights, hidden units and residual branches"
    )
    source: float = Field(default=0.3, ge=0, lt=1, description="dropout rate of the projected features of the photo")


class TransformerConfig(DecoderConfig):
    """Sizes shared by all transformer families."""

    width: int = Field(default=256, ge=2, le=MOST_UNITS, description="size of a token's representation")
    feed_forward: int = Field(
        default=512, ge=1, le=MOST_UNITS, description="size of the hidden layer of each feed-forward network"
    )
    heads: int = Field(default=8, ge=1, le=256, description="number of heads")
    dropout: TransformerDropout = TransformerDropout()

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


def normalised(x: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Normalise x `(..., D)` to mean 0 and variance 1 over the last axis."""
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
    """Layer normalisation by the unbiased standard deviation, as in the reference implementation of ORT."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x `(..., D)`."""
        x = wide(x)
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).sum(-1, keepdim=True) * (1 / (x.shape[-1] - 1))
        # 1e-12 avoids a NaN gradient at 0, for regions whose weights are all pruned, and changes nothing else
        return centred / (torch.sqrt(variance + 1e-12) + 1e-6) * self.weight + self.bias


def in_heads(x: Tensor, heads: int) -> Tensor:
    """Split `(B, N, D)` into heads `(B, H, N, D / H)`."""
    return x.reshape(-1, x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, heads: int, bias: Tensor | None = None, dropout: Dropout | None = None
) -> tuple[Tensor, Tensor]:
    """Compute scaled dot-product attention of many queries.

    Args:
        query: `(B, N, D)`.
        keys: `(B, M, D)`.
        values: `(B, M, D)`.
        heads: H.
        bias: Added to the scores; broadcasts to `(B, H, N, M)`.
        dropout: Dropout rate of the attention weights.

    Returns:
        The output of the heads, `(B, N, D)`, and their weights, `(B, H, N, M)`.
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
    """Compute `attend` for a single query with elementwise operators.

    Args:
        query: `(B, D)`.
        keys: `(B, M, D)`.
        values: `(B, M, D)`.
        heads: H.
        bias: `(1, M)`.

    Returns:
        The output of the heads, `(B, D)`, and their mean weights, `(B, M)`.
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
    """Base of decoder layers: attention over the photo and a feed-forward network.

    Both are residual branches with pre-normalisation.

    Args:
        width: D.
        feed_forward: Units of the feed-forward network.
        heads: H.
        dropout: Dropout rate of attention weights, hidden units and residual branches.
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

    def look_and_feed(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return all words x `(B, T, D)` after attention to the photo and the feed-forward network; see `look`."""
        looked, _ = self.look(x.reshape(len(keys), -1, x.shape[-1]), keys, values)  # (P, n T, D)
        return self.feed(looked.reshape(x.shape))


def photo_names(layer: int) -> tuple[str, str]:
    """Return the names of a layer's keys and values among the held tensors of a photo."""
    return f"photo_keys_{layer}", f"photo_values_{layer}"


def photo_specs(layers: int, regions: int, width: int) -> dict[str, TensorSpec]:
    """Return the shapes of the held tensors of a photo."""
    return {name: TensorSpec((regions, width)) for layer in range(layers) for name in photo_names(layer)}


def photo_tensors(layers: Iterable[nn.Module], seen: Tensor) -> dict[str, Tensor]:
    """Return the held tensors of a photo: keys and values `(P, R, D)` of the regions, for every layer."""
    held = {}
    for number, layer in enumerate(layers):
        assert isinstance(layer, SeeingLayer)
        keys, values = photo_names(number)
        held[keys], held[values] = layer.photo_key(seen), layer.photo_value(seen)
    return held


def of_layer(held: Tensors, layer: int) -> tuple[Tensor, Tensor]:
    """Return the keys and values of a layer from the held tensors of a photo."""
    keys, values = photo_names(layer)
    return held[keys], held[values]


def sinusoids(count: int, width: int, wave: float = WAVE) -> Tensor:
    """Return the position table `(count, width)`: alternating sines and cosines of waves of increasing length."""
    frequencies = wave ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].float()


def spoken_scores(output: nn.Linear, x: Tensor, spoken: Tensor) -> Tensor:
    """Return the scores `(words, V)` of the words that are not padding.

    Args:
        output: The output layer.
        x: `(B, T, D)`.
        spoken: `(B, T)`, False for padding, which skips the output layer.
    """
    kept = x[spoken]
    filled = nn.functional.pad(kept, (0, 0, 0, -len(kept) % ROWS))
    scores: Tensor = output(filled)
    return scores[: len(kept)]
