"""A decoder of retention layers in their recurrent form, whose state has the same size at every word.

After Sun et al., "Retentive Network: A Successor to Transformer for Large Language Models" (2023); SwiFTeR (Hu, Cavicchioli,
Capotondi, 2024) captions photos with such a decoder. Each head has a matrix S of products of keys and values:

    S' = gamma S + k v^T,    read = q S',    out = merge(swish(gate) * normalised(read))

`scores` computes the same for whole captions at once. There are no position embeddings: each head forgets at its own rate,
which encodes the order of the words. A step without a position can compute several hypotheses of a search in one call.

Shapes: B captions, P photos, R regions, F feature channels, T words, D width, H heads, K key and U = D / H value of a head,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from capprune.config.decoder import DecoderConfig
from capprune.models.additive import wide
from capprune.models.chance import Dropout
from capprune.models.family import Decoder, Role, Step, Tensors
from capprune.models.transformer import (
    Norm,
    SeeingLayer,
    TransformerConfig,
    in_heads,
    normalised,
    of_layer,
    photo_specs,
    photo_tensors,
    spoken_scores,
)
from capprune_runtime.bundle.interface import StateSpec, StepInterface

FASTEST, SLOWEST = (
    1.0,
    6.0,
)  # gamma = 1 - 2^-x: from 0.5 to 0.984, because captions have about 10 words, not thousands like texts
MOST_LAYERS = 16  # a layer has two held tensors and one state tensor, and an interface at most 64


class RetentionConfig(TransformerConfig):
    """Sizes of a retention decoder."""

    family: Literal["retention"] = "retention"
    key: int = Field(
        default=16, ge=1, le=1024, description="size of a head's keys; its state has key x width / heads numbers"
    )
    layers: int = Field(default=3, ge=1, le=MOST_LAYERS, description="number of layers")


class RetentionLayer(SeeingLayer):
    """Retention over the previous words, attention over the photo, and a feed-forward network, each with pre-normalisation."""

    gamma: Tensor

    def __init__(self, config: RetentionConfig) -> None:
        width, keys = config.width, config.heads * config.key
        super().__init__(width, config.feed_forward, config.heads, config.dropout.layer)
        self.scale = 1 / math.sqrt(config.key)
        self.norm = Norm(width)
        self.query, self.key = nn.Linear(width, keys, bias=False), nn.Linear(width, keys, bias=False)
        self.value, self.gate = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.merge = nn.Linear(width, width)
        self.register_buffer("gamma", decays(config.heads).reshape(1, -1, 1, 1), persistent=False)

    def read(self, x: Tensor) -> Tensor:
        """Return all words x `(B, T, D)` after retention, as one product of queries and decayed keys."""
        seen, words = self.norm(x), x.shape[1]
        query, key, value = (in_heads(part(seen), self.heads) for part in (self.query, self.key, self.value))
        ago = torch.arange(words, device=x.device)
        ago = ago[:, None] - ago  # (T, T), negative for later words
        decay = torch.where(ago < 0, 0.0, self.gamma[0] ** ago.clamp(min=0))  # (H, T, T)
        shares = wide(torch.matmul(query, key.transpose(2, 3))) * (self.scale * decay)
        read = torch.matmul(shares.to(value.dtype), value)  # (B, H, T, U)
        return self._merged(x, seen, read.transpose(1, 2))

    def read_once(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Compute `read` for one word.

        Args:
            x: `(B, D)`.
            state: S, `(B, H, K, U)`.

        Returns:
            The next x and the next state.
        """
        seen, heads = self.norm(x), self.heads
        query, key, value = self.query(seen), self.key(seen), self.value(seen)
        _, _, keys, values = state.shape
        state = self.gamma * state + key.reshape(-1, heads, keys, 1) * value.reshape(-1, heads, 1, values)
        # scales the result, not the key: converters would fold a scale into the key's weight
        read = (query.reshape(-1, heads, keys, 1) * state).sum(2) * self.scale  # (B, H, U)
        return self._merged(x, seen, read), state

    def _merged(self, x: Tensor, seen: Tensor, read: Tensor) -> Tensor:
        """Add the output of the heads, `(..., H, U)`, to x `(..., D)`."""
        gated = F.silu(self.gate(seen)) * normalised(read).reshape(x.shape)
        merged: Tensor = x + self.dropout(self.merge(gated))
        return merged


class Retention(Decoder):
    """A decoder of retention layers that attend to the regions of a photo."""

    Config: ClassVar[type[DecoderConfig]] = RetentionConfig

    def __init__(self, config: RetentionConfig, *, features: int, vocabulary: int, **fixed: Any) -> None:
        super().__init__(config, features=features, vocabulary=vocabulary, **fixed)
        self.shape, width = config, config.width
        self.project = nn.Linear(features, width)
        self.photo_norm = Norm(width)
        self.source_dropout, self.dropout = Dropout(config.dropout.source), Dropout(config.dropout.layer)
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(RetentionLayer(config) for _ in range(config.layers))
        self.norm = Norm(width)
        self.output = nn.Linear(width, vocabulary)
        self.initialise()

    def interface(self) -> StepInterface:
        """See `Decoder.interface`."""
        config, layers = self.shape, range(self.shape.layers)
        held = photo_specs(config.layers, self.regions, config.width)
        matrix = StateSpec((config.heads, config.key, config.width // config.heads), first="zeros")
        return StepInterface(self.vocabulary, held, {f"retained_{n}": matrix for n in layers}, self.regions)

    def roles(self) -> Mapping[str, Role]:
        """See `Decoder.roles`."""
        found = {"project": Role.PER_PHOTO, "embedding": Role.LOOKED_UP, "output": Role.PER_WORD}
        for name, part in self.layers.named_modules(prefix="layers"):
            if isinstance(part, nn.Linear):
                once = name.endswith(("photo_key", "photo_value"))
                found[name] = Role.PER_PHOTO if once else Role.PER_WORD
        return found

    def describe(self) -> str:
        """See `Decoder.describe`."""
        return f"{self.shape.layers} layers of retention"

    def encode(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """See `Decoder.encode`; returns keys and values `(P, R, D)` for every layer."""
        seen = self.source_dropout(self.photo_norm(torch.relu(self.project(features))))
        return photo_tensors(self.layers, seen), {}

    def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None = None) -> Step:
        """See `Decoder.step`."""
        x, after, attention = self._embed(token), {}, None
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, RetentionLayer)
            name = f"retained_{number}"
            x, after[name] = layer.read_once(x, state[name])
            x, attention = layer.look(x, *of_layer(held, number))
            x = layer.feed(x)
        return Step(self.output(self.norm(x)), after, attention)

    def scores(self, features: Tensor, inputs: Tensor, targets: Tensor, present: Tensor | None = None) -> Tensor:
        """See `Decoder.scores`; computes all words at once."""
        held, _ = self.encode(features)
        x = self._embed(inputs)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, RetentionLayer)
            x = layer.look_and_feed(layer.read(x), *of_layer(held, number))
        return spoken_scores(self.output, self.norm(x), targets >= 0)

    def _embed(self, token: Tensor) -> Tensor:
        word: Tensor = self.dropout(self.embedding(token) * math.sqrt(self.shape.width))
        return word


def decays(heads: int) -> Tensor:
    """Return gamma of each head, `(H,)`: the factor by which a word's weight decays per following word."""
    return 1 - 2.0 ** -torch.linspace(FASTEST, SLOWEST, heads)
