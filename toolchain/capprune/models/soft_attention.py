"""The Soft-Attention decoder: one explicit `encode`, one explicit `step`, all state passed in and out.

After Xu et al., "Show, Attend and Tell" (2015), in the form that the pruning papers train (Tan, Chan, Chuah, 2019):
additive attention over keys and values that are projected once a photo, the initial state from the pooled features,
the context vector joined to the word embedding. `forward` is the same computation over whole captions at once.

Shapes: B captions, P photos, R regions, F feature channels, T words, E embedding, H hidden, A attention, C context,
V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from capprune.config import DecoderConfig, DropoutConfig
from capprune.models.additive import additive_scores, wide
from capprune.models.chance import Dropout
from capprune.models.recurrence import Weights, recur

FORGET_BIAS = 1.0  # the gate starts open, so that gradients reach back from the first step on
ROWS = 64  # a batch's words are filled up to a multiple of this: products of a shape that is new are slow to start


State = tuple[Tensor, ...]  # (h,) for a GRU, (h, c) for an LSTM; each (B, H)


class Encoded(NamedTuple):
    """What attention and the first step need of a photo."""

    keys: Tensor  # (P, R, A)
    values: Tensor  # (P, R, C)
    h: Tensor  # (P, H)


class SoftAttention(nn.Module):
    """A recurrent decoder with additive attention over the regions of a photo."""

    def __init__(
        self, shape: DecoderConfig, *, features: int, vocabulary: int, dropout: DropoutConfig | None = None
    ) -> None:
        super().__init__()
        rates = dropout or DropoutConfig()
        self.shape, self.feature_channels, self.vocabulary = shape, features, vocabulary
        joined = shape.embedding + shape.context + shape.hidden
        self.embedding = nn.Embedding(vocabulary, shape.embedding)
        self.initial = nn.Linear(features, shape.hidden, bias=False)
        self.key = nn.Linear(features, shape.attention, bias=False)
        self.value = nn.Linear(features, shape.context, bias=False)
        self.query = nn.Linear(shape.hidden, shape.attention, bias=False)
        self.score = nn.Linear(shape.attention, 1, bias=False)
        self.rnn = nn.Linear(joined, (4 if shape.cell == "lstm" else 2) * shape.hidden)
        if shape.cell == "gru":
            self.candidate = nn.Linear(joined, shape.hidden)
        self.output = nn.Linear(shape.hidden, vocabulary)
        self.rnn_dropout = Dropout(rates.rnn)
        self.attention_dropout = Dropout(rates.attention)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
        with torch.no_grad():  # LSTM gates in the order input, forget, cell, output; GRU gates reset, update
            hidden = self.shape.hidden
            if self.shape.cell == "lstm":
                self.rnn.bias[hidden : 2 * hidden] = FORGET_BIAS
            else:
                self.rnn.bias.fill_(FORGET_BIAS)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The recurrent state's names, in order."""
        return ("h", "c") if self.shape.cell == "lstm" else ("h",)

    def encode(self, features: Tensor) -> Encoded:
        """Project grid features `(P, R, F)` once a photo."""
        return Encoded(self.key(features), self.value(features), self.initial(features.mean(1)))

    def first_state(self, h: Tensor) -> State:
        """The state before the first word, from the projected `h` `(B, H)`; an LSTM's cell starts at zero."""
        return (h, torch.zeros_like(h)) if self.shape.cell == "lstm" else (h,)

    def attend(self, h: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Look at the photo.

        Args:
            h: `(P * n, H)`: n captions for each photo, those of a photo side by side.
            keys: `(P, R, A)`.
            values: `(P, R, C)`.

        Returns:
            The context `(P * n, C)` and the attention `(P * n, R)`, which sums to 1.
        """
        photos, regions, width = keys.shape
        query = self.query(h).view(photos, -1, width)  # (P, n, A)
        attention = torch.softmax(additive_scores(keys, query, self.score.weight), dim=-1)  # (P, n, R)
        context = torch.bmm(self.attention_dropout(attention), values)  # (P, n, C)
        return context.flatten(0, 1), attention.view(-1, regions)

    def attend_singly(self, h: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """`attend` for one caption a photo, P = B, in elementwise operators.

        What is exported. The products of `attend` have one row here, and XNNPACK takes these operators in half their time,
        in one piece with what stands around them.

        Args:
            h: `(B, H)`.
            keys: `(B, R, A)`.
            values: `(B, R, C)`.

        Returns:
            The context `(B, C)` and the attention `(B, R)`.
        """
        query = self.query(h).unsqueeze(1)  # (B, 1, A)
        scores = (torch.tanh(keys + query) * self.score.weight).sum(-1)  # (B, R)
        attention = torch.softmax(scores, dim=-1)
        return (attention.unsqueeze(-1) * values).sum(1), attention

    def step(self, token: Tensor, state: State, keys: Tensor, values: Tensor) -> tuple[Tensor, State, Tensor]:
        """One word further.

        Args:
            token: `(B,)` ids of the words before.
            state: `(h,)` or `(h, c)`, each `(B, H)`.
            keys: `(P, R, A)` with B a multiple of P.
            values: `(P, R, C)`.

        Returns:
            Raw scores `(B, V)`, the new state, the attention `(B, R)`.
        """
        attend = self.attend_singly if keys.shape[0] == state[0].shape[0] else self.attend  # no len(): it fixes B
        context, attention = attend(state[0], keys, values)
        word = self.rnn_dropout(self.embedding(token))
        state = self._recur(torch.cat([word, context], -1), state)
        return self.output(self.rnn_dropout(state[0])), state, attention

    def forward(self, features: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of whole captions under teacher forcing.

        Args:
            features: `(P, R, F)`.
            inputs: `(B, T)` ids fed in, `<start>` first; the captions of a photo stand side by side.
            targets: `(B, T)` ids to predict; negative where a caption is over.

        Returns:
            A scalar, in nats a word.
        """
        return nn.functional.cross_entropy(self.scores(features, inputs, targets), targets[targets >= 0])

    def scores(self, features: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Raw scores `(words, V)` of every word that `targets` holds, in its order; see `forward` for shapes."""
        keys, values, h = self.encode(features)
        captions = len(inputs) // len(features)
        words = self.rnn_dropout(self.embedding(inputs.t())).to(keys.dtype)  # (T, B, E), under autocast in its type
        all_kept = wide(keys).new_ones(inputs.shape[1], len(features), captions, features.shape[1])
        dropped = self.attention_dropout(all_kept) if self.training and self.attention_dropout.p else None
        hidden = recur(words, keys, values, h.repeat_interleave(captions, 0), dropped, self._weights())
        spoken = targets >= 0
        kept = self.rnn_dropout(hidden.transpose(0, 1)[spoken])  # (words, H): padding costs no output layer
        filled = nn.functional.pad(kept, (0, 0, 0, -len(kept) % ROWS))
        scores: Tensor = self.output(filled)
        return scores[: len(kept)]

    def _weights(self) -> Weights:
        own = Weights(self.query.weight, self.score.weight, self.rnn.weight, self.rnn.bias)
        if self.shape.cell == "lstm":
            return own
        return own._replace(candidate=self.candidate.weight, candidate_bias=self.candidate.bias)

    def _recur(self, x: Tensor, state: State) -> State:
        h = state[0]
        gates = wide(self.rnn(torch.cat([x, h], -1)))  # what products are not made of stays float32
        if self.shape.cell == "lstm":
            into, forget, cell, out = gates.chunk(4, -1)
            c = torch.sigmoid(forget) * state[1] + torch.sigmoid(into) * torch.tanh(cell)
            return (torch.sigmoid(out) * torch.tanh(c)).to(x.dtype), c
        reset, update = torch.sigmoid(gates).chunk(2, -1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * h], -1)))
        return (update * h + (1 - update) * candidate,)
