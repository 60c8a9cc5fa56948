"""A plain implementation of a Soft-Attention LSTM, as the reference for training speed.

Batches hold photo-caption pairs in random order, padded to the longest. Every pair projects its own copy of the photo's
features. The decoder is an `LSTMCell` in a loop. Scores and loss cover all positions, with padding masked at the end.
Features are cached, as in capprune.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capprune.models.soft_attention import SoftAttentionConfig
from capprune_runtime.bundle.vocabulary import END, START

PAIRS = 50  # per batch
FORGET_BIAS = 1.0


class PlainDecoder(nn.Module):
    """A decoder with the same sizes and attention as `capprune.models.soft_attention`."""

    def __init__(
        self, shape: SoftAttentionConfig, *, features: int, vocabulary: int, dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, shape.embedding)
        self.initial = nn.Linear(features, shape.hidden, bias=False)
        self.key = nn.Linear(features, shape.attention, bias=False)
        self.value = nn.Linear(features, shape.context, bias=False)
        self.query = nn.Linear(shape.hidden, shape.attention, bias=False)
        self.score = nn.Linear(shape.attention, 1, bias=False)
        self.cell = nn.LSTMCell(shape.embedding + shape.context, shape.hidden)
        self.output = nn.Linear(shape.hidden, vocabulary)
        self.dropout, self.attention_dropout = nn.Dropout(dropout), nn.Dropout(attention_dropout)

    def forward(self, features: Tensor, inputs: Tensor) -> Tensor:
        """Return scores `(B, T, V)` for features `(B, R, F)` and ids `(B, T)`."""
        keys, values = self.key(features), self.value(features)
        h = self.initial(features.mean(1))
        c = torch.zeros_like(h)
        scores = []
        for t in range(inputs.shape[1]):
            energy = self.score(torch.tanh(keys + self.query(h).unsqueeze(1))).squeeze(-1)  # (B, R)
            attention = self.attention_dropout(torch.softmax(energy, -1))
            context = (attention.unsqueeze(-1) * values).sum(1)
            x = torch.cat([self.dropout(self.embedding(inputs[:, t])), context], -1)
            h, c = self.cell(x, (h, c))
            scores.append(self.output(self.dropout(h)))
        return torch.stack(scores, 1)


def padded(captions: list[tuple[int, ...]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, targets and the mask of positions without padding, each `(B, T)`."""
    length = max(map(len, captions)) + 1
    inputs, targets = torch.full((len(captions), length), END), torch.full((len(captions), length), END)
    spoken = torch.zeros(len(captions), length, dtype=torch.bool)
    inputs[:, 0] = START
    for row, ids in enumerate(captions):
        inputs[row, 1 : len(ids) + 1] = torch.tensor(ids)
        targets[row, : len(ids)] = torch.tensor(ids)
        spoken[row, : len(ids) + 1] = True
    return inputs, targets, spoken


def masked_loss(scores: Tensor, targets: Tensor, spoken: Tensor) -> Tensor:
    """Return the mean cross-entropy over the positions without padding."""
    losses = nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * spoken.flatten()).sum() / spoken.sum()
