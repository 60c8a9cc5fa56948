"""The Soft-Attention decoder.

After Xu et al., "Show, Attend and Tell" (2015), in the form that the pruning papers train (Tan, Chan, Chuah, 2019):
additive attention over keys and values that are projected once per photo, an initial state from the pooled features, and
the context vector joined to the word embedding. `scores` is the same computation over whole captions at once.

Shapes: B captions, P photos, R regions, F feature channels, T words, E embedding, H hidden, A attention, C context,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from capprune.config.decoder import DecoderConfig
from capprune.config.decoder import Dropout as DropoutConfig
from capprune.config.tree import MOST_UNITS
from capprune.models.additive import additive_scores, wide
from capprune.models.cells import FORGET_BIAS, lstm, open_forget_gates
from capprune.models.chance import Dropout
from capprune.models.family import Decoder, Role, Step, Tensors
from capprune.models.recurrence import Weights, recur
from capprune_runtime.bundle.interface import StateSpec, StepInterface, TensorSpec

ROWS = 64  # a batch's words are filled up to a multiple of this: products of a shape that is new are slow to start


class SoftAttentionDropout(DropoutConfig):
    """Cut to a third while masks are sampled."""

    rnn: float = Field(
        default=0.35, ge=0, lt=1, description="dropout rate of word vectors and of the input of the output layer"
    )
    attention: float = Field(default=0.1, ge=0, lt=1, description="dropout rate of the attention weights")


class SoftAttentionConfig(DecoderConfig):
    """Sizes of a Soft-Attention decoder."""

    family: Literal["soft_attention"] = "soft_attention"
    cell: Literal["lstm", "gru"] = Field(default="lstm", description="recurrent cell")
    embedding: int = Field(default=256, ge=1, le=MOST_UNITS, description="size of a word vector")
    hidden: int = Field(default=512, ge=1, le=MOST_UNITS, description="size of the recurrent state")
    attention: int = Field(default=512, ge=1, le=MOST_UNITS, description="size of keys and queries")
    context: int = Field(default=512, ge=1, le=MOST_UNITS, description="size of the attended value")
    dropout: SoftAttentionDropout = SoftAttentionDropout()


class SoftAttention(Decoder):
    """A recurrent decoder with additive attention over the regions of a photo."""

    Config: ClassVar[type[DecoderConfig]] = SoftAttentionConfig

    def __init__(self, config: SoftAttentionConfig, *, features: int, vocabulary: int, **fixed: Any) -> None:
        super().__init__(config, features=features, vocabulary=vocabulary, **fixed)
        self.shape = config
        joined = config.embedding + config.context + config.hidden
        self.embedding = nn.Embedding(vocabulary, config.embedding)
        self.initial = nn.Linear(features, config.hidden, bias=False)
        self.key = nn.Linear(features, config.attention, bias=False)
        self.value = nn.Linear(features, config.context, bias=False)
        self.query = nn.Linear(config.hidden, config.attention, bias=False)
        self.score = nn.Linear(config.attention, 1, bias=False)
        self.rnn = nn.Linear(joined, (4 if config.cell == "lstm" else 2) * config.hidden)
        if config.cell == "gru":
            self.candidate = nn.Linear(joined, config.hidden)
        self.output = nn.Linear(config.hidden, vocabulary)
        self.rnn_dropout = Dropout(config.dropout.rnn)
        self.attention_dropout = Dropout(config.dropout.attention)
        self.initialise()
        if config.cell == "lstm":
            open_forget_gates(self.rnn)
        else:
            nn.init.constant_(self.rnn.bias, FORGET_BIAS)  # gates in the order reset, update

    def interface(self) -> StepInterface:
        """See `Decoder.interface`."""
        held = {"keys": TensorSpec((self.regions, self.shape.attention)),
                "values": TensorSpec((self.regions, self.shape.context))}  # fmt: skip
        state = {name: StateSpec((self.shape.hidden,)) for name in self._state_names}
        return StepInterface(self.vocabulary, held, state, self.regions)

    def roles(self) -> Mapping[str, Role]:
        """See `Decoder.roles`."""
        once = dict.fromkeys(("initial", "key", "value"), Role.PER_PHOTO)
        candidate = {"candidate": Role.PER_WORD} if self.shape.cell == "gru" else {}
        words = {"rnn": Role.PER_WORD, **candidate, "query": Role.PER_WORD, "output": Role.PER_WORD}
        return {"embedding": Role.LOOKED_UP, **once, **words, "score": Role.ELEMENTWISE}

    def describe(self) -> str:
        """See `Decoder.describe`."""
        return f"{self.shape.cell.upper()} with soft attention"

    @property
    def _state_names(self) -> tuple[str, ...]:
        return ("h", "c") if self.shape.cell == "lstm" else ("h",)

    def encode(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """See `Decoder.encode`; returns keys `(P, R, A)`, values `(P, R, C)`, h `(P, H)`, and for an LSTM a zero c."""
        held = {"keys": self.key(features), "values": self.value(features)}
        h = self.initial(features.mean(1))
        return held, {"h": h, "c": torch.zeros_like(h)} if self.shape.cell == "lstm" else {"h": h}

    def attend(self, h: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to the photo.

        Args:
            h: `(P * n, H)` for n captions of each photo, which are adjacent.
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
        """Compute `attend` for one caption per photo, P = B, with elementwise operators.

        This form is exported. The products of `attend` have one row here. XNNPACK computes these operators in half the time,
        in one partition with their neighbours.

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

    def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None = None) -> Step:
        """See `Decoder.step`."""
        h, keys, values = state["h"], held["keys"], held["values"]
        attend = self.attend_singly if keys.shape[0] == h.shape[0] else self.attend  # not len(), which would fix B
        context, attention = attend(h, keys, values)
        word = self.rnn_dropout(self.embedding(token))
        state = self._recur(torch.cat([word, context], -1), state)
        return Step(self.output(self.rnn_dropout(state["h"])), state, attention)

    def scores(self, features: Tensor, inputs: Tensor, targets: Tensor, present: Tensor | None = None) -> Tensor:
        """See `Decoder.scores`; computes the recurrence over whole captions as one node of autograd's graph."""
        held, first = self.encode(features)
        keys, values, h = held["keys"], held["values"], first["h"]
        captions = len(inputs) // len(features)
        words = self.rnn_dropout(self.embedding(inputs.t())).to(keys.dtype)  # (T, B, E), under autocast in its type
        all_kept = wide(keys).new_ones(inputs.shape[1], len(features), captions, keys.shape[1])
        dropped = self.attention_dropout(all_kept) if self.training and self.attention_dropout.p else None
        hidden = recur(words, keys, values, h.repeat_interleave(captions, 0), dropped, self._weights())
        spoken = targets >= 0
        kept = self.rnn_dropout(hidden.transpose(0, 1)[spoken])  # (words, H): padding skips the output layer
        filled = nn.functional.pad(kept, (0, 0, 0, -len(kept) % ROWS))
        scores: Tensor = self.output(filled)
        return scores[: len(kept)]

    def _weights(self) -> Weights:
        own = Weights(self.query.weight, self.score.weight, self.rnn.weight, self.rnn.bias)
        if self.shape.cell == "lstm":
            return own
        return own._replace(candidate=self.candidate.weight, candidate_bias=self.candidate.bias)

    def _recur(self, x: Tensor, state: Tensors) -> dict[str, Tensor]:
        h = state["h"]
        gates = wide(self.rnn(torch.cat([x, h], -1)))  # only products use the narrow type
        if self.shape.cell == "lstm":
            h, c = lstm(gates, state["c"])
            return {"h": h.to(x.dtype), "c": c}
        reset, update = torch.sigmoid(gates).chunk(2, -1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * h], -1)))
        return {"h": update * h + (1 - update) * candidate}
