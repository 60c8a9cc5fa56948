"""Small modules in the forms that become few operators, all of them allowed: what decoders with attention are made of.

B rows, T steps of the cache, L layers, D width, H heads of D / H, R regions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, STEPS, LAYERS, WORDS, REGIONS = 16, 4, 12, 2, 20, 9
HEAD = WIDTH // HEADS
HIDDEN = -1e9  # a score that softmax makes exactly 0; weights must be finite
Inputs = dict[str, Tensor]


class Norm(nn.Module):
    """Layer normalisation in single operators, by the biased variance or by the unbiased standard deviation."""

    def __init__(self, size: int, *, unbiased: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(size) + 0.5), nn.Parameter(torch.randn(size))
        self.unbiased = unbiased

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        squares = centred * centred
        if self.unbiased:
            deviation = torch.sqrt(squares.sum(-1, keepdim=True) * (1 / (x.shape[-1] - 1)))
            return centred / (deviation + 1e-6) * self.weight + self.bias
        return centred / torch.sqrt(squares.mean(-1, keepdim=True) + 1e-5) * self.weight + self.bias


def heads(x: Tensor) -> Tensor:
    """(B, n, D) → (B, H, n, D / H)."""
    return x.reshape(-1, x.shape[1], HEADS, HEAD).transpose(1, 2)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention of one query: (B, D) and the mean weights (B, n) of query (B, D), keys and values (B, n, D), mask (B, n)."""
    count = keys.shape[1]
    scores = torch.matmul(query.reshape(-1, HEADS, 1, HEAD), heads(keys).transpose(2, 3)) * (1 / math.sqrt(HEAD))
    if mask is not None:
        scores = scores + mask.reshape(-1, 1, 1, count)
    weights = torch.softmax(scores, -1)
    return torch.matmul(weights, heads(values)).reshape(-1, WIDTH), weights.reshape(-1, HEADS, count).mean(1)


class Layer(nn.Module):
    """Self-attention over a cache, attention over regions, feed-forward; normalised behind each."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mixed = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.seen, self.looked = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.first, self.second, self.third = (norm(WIDTH) for _ in range(3))

    def forward(
        self, x: Tensor, cache: tuple[Tensor, Tensor], mask: Tensor, regions: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        key, value = self.key(x), self.value(x)
        keys, values = (torch.cat([old, new.unsqueeze(1)], 1) for old, new in zip(cache, (key, value), strict=True))
        mixed, _ = attend(self.query(x), keys, values, mask)
        x = self.first(x + self.mixed(mixed))
        looked, weights = attend(self.seen(x), *regions)
        x = self.second(x + self.looked(looked))
        return self.third(x + self.down(functional.relu(self.up(x)))), key, value, weights


class TransformerStep(nn.Module):
    """One word: reads the whole cache and the position, gives only what is new of the cache."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.words, self.scores = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.layers = nn.ModuleList(Layer(norm) for _ in range(LAYERS))
        # Row p: p steps of the cache are there, and the last column, the step itself.
        masks = torch.triu(torch.full((STEPS, STEPS + 1), HIDDEN))
        masks[:, -1] = 0
        self.register_buffer("masks", masks)
        self.register_buffer("positions", torch.randn(STEPS, WIDTH))

    def forward(
        self, token: Tensor, position: Tensor, keys: Tensor, values: Tensor, region_keys: Tensor, region_values: Tensor
    ) -> Inputs:
        x = self.words(token) * math.sqrt(WIDTH) + functional.embedding(position, self.positions)
        mask = functional.embedding(position, self.masks)
        caches, new_keys, new_values = (layers_of(keys), layers_of(values)), [], []
        for layer, *cache in zip(self.layers, *caches, strict=True):
            x, key, value, attention = layer(x, tuple(cache), mask, (region_keys, region_values))
            new_keys.append(key)
            new_values.append(value)
        return {"scores": self.scores(x), "new_keys": stacked(new_keys), "new_values": stacked(new_values),
                "attention": attention}  # fmt: skip


def layers_of(cache: Tensor) -> tuple[Tensor, ...]:
    """(B, T, L, D) → L times (B, T, D)."""
    return cache.reshape(-1, STEPS, LAYERS * WIDTH).chunk(LAYERS, -1)


def stacked(layers: list[Tensor]) -> Tensor:
    """L times (B, D) → (B, L, D)."""
    return torch.cat(layers, -1).reshape(-1, LAYERS, WIDTH)


class Retention(nn.Module):
    """A decayed sum of products of keys and values a head, normalised a head, behind a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.projected, self.gate, self.mixed = (
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, 8),
        )
        self.norm = Norm(HEAD)
        self.register_buffer("decay", (1 - 2.0 ** (-5 - torch.arange(HEADS))).reshape(1, HEADS, 1, 1))

    def forward(self, x: Tensor, state: Tensor) -> Inputs:
        query, key, value = self.projected(x).chunk(3, -1)
        state = self.decay * state + key.reshape(-1, HEADS, HEAD, 1) * value.reshape(-1, HEADS, 1, HEAD)
        read = (query.reshape(-1, HEADS, HEAD, 1) * state).sum(2)
        read = self.norm(read).reshape(-1, WIDTH) * functional.silu(self.gate(x))
        return {"mixed": self.mixed(read), "state": state}


class Capsules(nn.Module):
    """Two rounds of routing by agreement; softmax over the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.predicted = nn.Linear(6, 5 * 8)

    def forward(self, parts: Tensor) -> Inputs:
        predicted = self.predicted(parts).reshape(-1, REGIONS, 5, 8).transpose(1, 2)  # (B, 5, R, 8)
        wholes = squash(predicted.mean(2))
        agreement = (predicted * wholes.unsqueeze(2)).sum(-1)
        shares = torch.softmax(agreement.transpose(1, 2), -1).transpose(1, 2)
        return {"wholes": squash((shares.unsqueeze(-1) * predicted).sum(2))}


def squash(x: Tensor) -> Tensor:
    """x |x| / (1 + |x|²), which divides by no length."""
    squared = (x * x).sum(-1, keepdim=True)
    return x * (torch.sqrt(squared) / (1 + squared))


class GeometricAttention(nn.Module):
    """Attention between regions with a bias by where they lie, computed in the model."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Linear(24, HEADS)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor, relations: Tensor) -> Inputs:
        bias = torch.log(torch.clamp(torch.relu(self.bias(relations)), min=1e-6)).permute(0, 3, 1, 2)
        scores = torch.matmul(heads(self.query(x)), heads(self.key(x)).transpose(2, 3)) * (1 / math.sqrt(HEAD))
        mixed = torch.matmul(torch.softmax(bias + scores, -1), heads(self.value(x)))
        return {"mixed": mixed.transpose(1, 2).reshape(-1, REGIONS, WIDTH)}


class AttentiveEncoder(nn.Module):
    """Convolutions, and attention between the regions that they give."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.Conv2d(8, WIDTH, 3, stride=4, padding=1)
        self.attention, self.norm, self.h = GeometricAttention(), Norm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("relations", torch.randn(1, REGIONS, REGIONS, 24))

    def forward(self, photo: Tensor) -> Inputs:
        cells = torch.relu(self.second(torch.relu(self.first(photo.permute(0, 3, 1, 2)))))
        x = cells.flatten(2).transpose(1, 2)
        keys = self.norm(x + self.attention(x, self.relations)["mixed"])
        return {"keys": keys, "h": torch.tanh(self.h(keys.mean(1)))}


class MaskedSoftmax(nn.Module):
    """Shares of what a mask of 0 and 1 leaves."""

    def forward(self, scores: Tensor, mask: Tensor) -> Inputs:
        shares = torch.softmax(scores, -1) * mask
        return {"shares": shares / shares.sum(-1, keepdim=True)}


class FeedForward(nn.Module):
    """The activations that may stand between two products."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH), Norm(WIDTH, unbiased=True)

    def forward(self, x: Tensor) -> Inputs:
        gelu, approximate = (
            functional.gelu(self.up(x)).chunk(2, -1)[0],
            functional.gelu(self.down(x), approximate="tanh"),
        )
        return {"y": self.norm(gelu + approximate + functional.glu(self.up(x), -1))}


def form(name: str) -> tuple[nn.Module, Inputs]:
    """A module with random weights and an input of one row."""
    torch.manual_seed(3)
    module = {
        "transformer, nn.LayerNorm": lambda: TransformerStep(nn.LayerNorm),
        "transformer": lambda: TransformerStep(Norm),
        "retention": Retention,
        "capsules": Capsules,
        "geometric attention": GeometricAttention,
        "masked softmax": MaskedSoftmax,
        "encoder": AttentiveEncoder,
        "feed-forward": FeedForward,
    }[name]()
    return module.eval(), inputs(name)


def inputs(name: str, rows: int = 1) -> Inputs:
    """Random inputs of a form."""
    if name.startswith("transformer"):
        cache = {key: torch.randn(rows, STEPS, LAYERS, WIDTH) for key in ("keys", "values")}
        regions = {f"region_{key}": torch.randn(rows, REGIONS, WIDTH) for key in ("keys", "values")}
        numbers = torch.arange(rows, dtype=torch.int32)
        return {"token": numbers + 3, "position": numbers + 4, **cache, **regions}
    return {
        "retention": lambda: {"x": torch.randn(rows, WIDTH), "state": torch.randn(rows, HEADS, HEAD, HEAD)},
        "capsules": lambda: {"parts": torch.randn(rows, REGIONS, 6)},
        "geometric attention": lambda: {
            "x": torch.randn(rows, REGIONS, WIDTH),
            "relations": torch.randn(rows, REGIONS, REGIONS, 24),
        },
        "masked softmax": lambda: {
            "scores": torch.randn(rows, REGIONS),
            "mask": (torch.arange(REGIONS) < 5).float().repeat(rows, 1),
        },
        "encoder": lambda: {"photo": torch.rand(rows, 48, 48, 3) * 2 - 1},
        "feed-forward": lambda: {"x": torch.randn(rows, WIDTH)},
    }[name]()


FORMS = (
    "transformer, nn.LayerNorm", "transformer", "retention", "capsules", "geometric attention", "masked softmax",
    "feed-forward", "encoder",
)  # fmt: skip
