"""The Object Relation Transformer: an encoder-decoder whose encoder uses the positions of the regions.

After Herdade et al., "Image Captioning: Transforming Objects into Words" (2019), in the form that the pruning papers train:
pre-normalisation, sinusoidal positions, embeddings times sqrt(D), an untied output layer. The boxes are the cells of the
encoder's grid, so the relations between them are constants.

The encoder part runs once per photo, in `encode`, and computes the keys and values of the decoder's attention over the photo.
A step reads the keys and values of the previous words and appends its own.

Shapes: B captions, P photos, R = g² regions, F feature channels, T words, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from capprune.config.decoder import DecoderConfig
from capprune.models.chance import Dropout
from capprune.models.family import Decoder, Role, Step, Tensors
from capprune.models.transformer import (
    HIDDEN,
    SeeingLayer,
    TransformerConfig,
    UnbiasedNorm,
    attend,
    attend_once,
    of_layer,
    photo_specs,
    photo_tensors,
    sinusoids,
    spoken_scores,
)
from capprune_runtime.bundle.interface import StateSpec, StepInterface
from capprune_runtime.errors import ConfigError

RELATION = 64  # features of the relative position of two boxes: sine and cosine of 8 waves of 4 differences
RELATION_WAVE, RELATION_SCALE = 1000.0, 100.0
SMALLEST_BIAS = 1e-6  # lower bound before the logarithm
MOST_LAYERS = 12  # a layer has two held tensors and two state tensors, and an interface at most 64


class RelationTransformerConfig(TransformerConfig):
    """Sizes of an Object Relation Transformer; the published one has width 512, feed_forward 2048 and 6 layers."""

    family: Literal["relation_transformer"] = "relation_transformer"
    encoder_layers: int = Field(default=2, ge=1, le=MOST_LAYERS, description="number of encoder layers")
    decoder_layers: int = Field(default=3, ge=1, le=MOST_LAYERS, description="number of decoder layers")


class PhotoLayer(nn.Module):
    """One encoder layer: attention between regions with a bias by their relative position, and a feed-forward network."""

    bias: Tensor

    def __init__(self, config: RelationTransformerConfig, regions: int) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm, self.feed_norm = UnbiasedNorm(width), UnbiasedNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.merge = nn.Linear(width, width), nn.Linear(width, width)
        self.relation = nn.Linear(RELATION, config.heads)
        self.widen, self.narrow = nn.Linear(width, config.feed_forward), nn.Linear(config.feed_forward, width)
        self.dropout = Dropout(config.dropout.layer)
        self.register_buffer("bias", torch.zeros(1, config.heads, regions, regions), persistent=False)

    def relation_bias(self, relations: Tensor) -> Tensor:
        """Return the bias of the scores `(1, H, R, R)` from relations `(R, R, 64)`."""
        weights = torch.relu(self.relation(relations)).clamp(min=SMALLEST_BIAS)
        return torch.log(weights).permute(2, 0, 1).unsqueeze(0)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return x `(P, R, D)` after this layer."""
        seen = self.norm(x)
        read, _ = attend(self.query(seen), self.key(seen), self.value(seen), self.heads, bias, self.dropout)
        x = x + self.dropout(self.merge(read))
        hidden = self.dropout(torch.relu(self.widen(self.feed_norm(x))))
        fed: Tensor = x + self.dropout(self.narrow(hidden))
        return fed


class WordLayer(SeeingLayer):
    """One decoder layer: attention over the previous words, attention over the photo, and a feed-forward network."""

    def __init__(self, config: RelationTransformerConfig) -> None:
        width = config.width
        super().__init__(width, config.feed_forward, config.heads, config.dropout.layer, UnbiasedNorm)
        self.norm = UnbiasedNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.merge = nn.Linear(width, width), nn.Linear(width, width)

    def read(self, x: Tensor, later: Tensor) -> Tensor:
        """Return all words x `(B, T, D)` after causal self-attention; `later` `(T, T)` masks later words."""
        seen = self.norm(x)
        read, _ = attend(self.query(seen), self.key(seen), self.value(seen), self.heads, later, self.dropout)
        merged: Tensor = x + self.dropout(self.merge(read))
        return merged

    def read_once(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute `read` for one word.

        Args:
            x: `(B, D)`.
            keys: `(B, T, D)`, of the previous words.
            values: `(B, T, D)`.
            mask: `(1, T + 1)`, the valid previous words, and the word itself.

        Returns:
            The next x, and the word's own key and value, each `(B, D)`.
        """
        seen = self.norm(x)
        key, value = self.key(seen), self.value(seen)
        keys = torch.cat([keys, key.unsqueeze(1)], 1)  # (B, T + 1, D)
        values = torch.cat([values, value.unsqueeze(1)], 1)
        read, _ = attend_once(self.query(seen), keys, values, self.heads, mask)
        return x + self.dropout(self.merge(read)), key, value


class RelationTransformer(Decoder):
    """An encoder-decoder with relations between regions and a cache of the previous words."""

    Config: ClassVar[type[DecoderConfig]] = RelationTransformerConfig
    positions: Tensor
    masks: Tensor
    relations: Tensor

    def __init__(self, config: RelationTransformerConfig, *, features: int, vocabulary: int, **fixed: Any) -> None:
        super().__init__(config, features=features, vocabulary=vocabulary, **fixed)
        self.shape, width = config, config.width
        self.project = nn.Linear(features, width)
        self.source_dropout, self.dropout = Dropout(config.dropout.source), Dropout(config.dropout.layer)
        self.photo_layers = nn.ModuleList(PhotoLayer(config, self.regions) for _ in range(config.encoder_layers))
        self.photo_norm = UnbiasedNorm(width)
        self.embedding = nn.Embedding(vocabulary, width)
        self.word_layers = nn.ModuleList(WordLayer(config) for _ in range(config.decoder_layers))
        self.word_norm = UnbiasedNorm(width)
        self.output = nn.Linear(width, vocabulary)
        # one row more than the longest caption: in training, `<end>` follows its last word
        self.register_buffer("positions", sinusoids(self.max_tokens + 1, width), persistent=False)
        self.register_buffer("masks", _masks(self.max_tokens), persistent=False)
        self.register_buffer("relations", grid_relations(_side(self.regions)), persistent=False)
        self.initialise()
        self._set_biases()

    def interface(self) -> StepInterface:
        """See `Decoder.interface`."""
        layers, width = self.shape.decoder_layers, self.shape.width
        held = photo_specs(layers, self.regions, width)
        cache = StateSpec((self.max_tokens, width), first="zeros", carry="append")
        state = {f"word_{kind}_{layer}": cache for layer in range(layers) for kind in ("keys", "values")}
        return StepInterface(self.vocabulary, held, state, self.regions, position=True)

    def roles(self) -> Mapping[str, Role]:
        """See `Decoder.roles`."""
        found = {"project": Role.PER_PHOTO, "embedding": Role.LOOKED_UP, "output": Role.PER_WORD}
        for prefix, layers in (("photo_layers", self.photo_layers), ("word_layers", self.word_layers)):
            for name, part in layers.named_modules(prefix=prefix):
                if isinstance(part, nn.Linear):
                    once = prefix == "photo_layers" or name.endswith(("photo_key", "photo_value"))
                    found[name] = Role.PER_PHOTO if once else Role.PER_WORD
        return found

    def describe(self) -> str:
        """See `Decoder.describe`."""
        return f"transformer of {self.shape.encoder_layers} + {self.shape.decoder_layers} layers with object relations"

    def train(self, mode: bool = True) -> Self:
        """Set the mode. In evaluation, the relations' biases are computed once; this form is exported."""
        super().train(mode)
        if not mode:
            self._set_biases()
        return self

    def encode(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """See `Decoder.encode`; returns keys and values `(P, R, D)` for every decoder layer."""
        x = self.source_dropout(torch.relu(self.project(features)))
        for layer in self.photo_layers:
            assert isinstance(layer, PhotoLayer)
            fixed = torch.compiler.is_exporting()
            x = layer(x, layer.bias if fixed else layer.relation_bias(self.relations))
        return photo_tensors(self.word_layers, self.photo_norm(x)), {}

    def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None = None) -> Step:
        """See `Decoder.step`."""
        assert position is not None
        x = self.dropout(self._embed(token) + F.embedding(position, self.positions))
        mask = F.embedding(position, self.masks)  # (1, T + 1)
        after, attention = {}, None
        for number, layer in enumerate(self.word_layers):
            assert isinstance(layer, WordLayer)
            keys, values = f"word_keys_{number}", f"word_values_{number}"
            x, after[keys], after[values] = layer.read_once(x, state[keys], state[values], mask)
            x, attention = layer.look(x, *of_layer(held, number))
            x = layer.feed(x)
        return Step(self.output(self.word_norm(x)), after, attention)

    def scores(self, features: Tensor, inputs: Tensor, targets: Tensor, present: Tensor | None = None) -> Tensor:
        """See `Decoder.scores`; computes all words at once with a causal mask."""
        held, _ = self.encode(features)
        words = inputs.shape[1]
        x = self.dropout(self._embed(inputs) + self.positions[:words])
        later = torch.full((words, words), HIDDEN, device=x.device).triu(1)
        for number, layer in enumerate(self.word_layers):
            assert isinstance(layer, WordLayer)
            x = layer.look_and_feed(layer.read(x, later), *of_layer(held, number))
        return spoken_scores(self.output, self.word_norm(x), targets >= 0)

    def _embed(self, token: Tensor) -> Tensor:
        word: Tensor = self.embedding(token) * math.sqrt(self.shape.width)
        return word

    @torch.no_grad()
    def _set_biases(self) -> None:
        for layer in self.photo_layers:
            assert isinstance(layer, PhotoLayer)
            layer.bias = layer.relation_bias(self.relations).contiguous()


def grid_relations(side: int) -> Tensor:
    """Return features of the relative positions of all pairs of grid cells, `(R, R, 64)`.

    Four differences of the boxes (log |dx| / w, log |dy| / h and the logs of the ratios of widths and of heights) are encoded
    as sines and cosines of 8 waves each, as in the reference implementation. Cells have one size, so both ratios are 1.

    Args:
        side: g, the grid's side in cells.
    """
    cells = torch.arange(side * side)
    places = torch.stack([cells % side, cells // side], -1).double()  # (R, 2), in cells
    distances = (places[:, None] - places[None]).abs().clamp(min=1e-3).log()  # (R, R, 2)
    differences = torch.cat([distances, torch.zeros_like(distances)], -1) * RELATION_SCALE
    waves = RELATION // 8
    frequencies = RELATION_WAVE ** (-torch.arange(waves, dtype=torch.float64) / waves)
    angles = (differences.unsqueeze(-1) * frequencies).flatten(2)  # (R, R, 32)
    return torch.cat([angles.sin(), angles.cos()], -1).float()


def _side(regions: int) -> int:
    side = math.isqrt(regions)
    if side * side != regions:
        raise ConfigError(
            "relations between regions need the cells of a grid",
            where="decoder.family: relation_transformer",
            expected="a square number of regions",
            found=regions,
        )
    return side


def _masks(max_tokens: int) -> Tensor:
    """Return the masks of cached words, `(T + 1, T + 1)`: row p is 0 for the p previous words and, last, for the word itself."""
    masks = torch.full((max_tokens + 1, max_tokens + 1), HIDDEN).triu()
    masks[:, -1] = 0
    return masks
