"""Show-Tell: an LSTM whose initial state is computed from the photo, without attention.

After Vinyals et al., "Show and Tell" (2015). The photo sets the initial state and is not the first word. Tanti et al., "Where to
put the image in an image caption generator" (2018), found both equally good, and a projection to the state is smaller than
a second use of the recurrent matrix in `encode`.

Shapes: P photos, B captions, R regions, F feature channels, T words, E embedding, H hidden, V vocabulary.
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
from capprune.models.cells import lstm, open_forget_gates
from capprune.models.chance import Dropout
from capprune.models.family import Decoder, Role, Step, Tensors, mean_region
from capprune_runtime.bundle.interface import StateSpec, StepInterface


class ShowTellDropout(DropoutConfig):
    """Cut to a third while masks are sampled."""

    rnn: float = Field(
        default=0.35, ge=0, lt=1, description="dropout rate of word vectors and of the input of the output layer"
    )


class ShowTellConfig(DecoderConfig):
    """Sizes of a Show-Tell decoder."""

    family: Literal["show_tell"] = "show_tell"
    embedding: int = Field(default=256, ge=1, le=MOST_UNITS, description="size of a word vector")
    hidden: int = Field(default=512, ge=1, le=MOST_UNITS, description="size of the recurrent state")
    dropout: ShowTellDropout = ShowTellDropout()


class ShowTell(Decoder):
    """An LSTM language model with an initial state from the photo."""

    Config: ClassVar[type[DecoderConfig]] = ShowTellConfig
    supports_padding: ClassVar[bool] = True

    def __init__(self, config: ShowTellConfig, *, features: int, vocabulary: int, **fixed: Any) -> None:
        super().__init__(config, features=features, vocabulary=vocabulary, **fixed)
        self.sizes = config
        self.embedding = nn.Embedding(vocabulary, config.embedding)
        self.initial = nn.Linear(features, 2 * config.hidden)  # h, then c
        self.rnn = nn.Linear(config.embedding + config.hidden, 4 * config.hidden)
        self.output = nn.Linear(config.hidden, vocabulary)
        self.rnn_dropout = Dropout(config.dropout.rnn)
        self.initialise()
        open_forget_gates(self.rnn)

    def interface(self) -> StepInterface:
        """See `Decoder.interface`."""
        return StepInterface(self.vocabulary, {}, {name: StateSpec((self.sizes.hidden,)) for name in ("h", "c")})

    def roles(self) -> Mapping[str, Role]:
        """See `Decoder.roles`."""
        return {
            "embedding": Role.LOOKED_UP,
            "initial": Role.PER_PHOTO,
            "rnn": Role.PER_WORD,
            "output": Role.PER_WORD,
        }

    def describe(self) -> str:
        """See `Decoder.describe`."""
        return "LSTM without attention"

    def encode(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """See `Decoder.encode`; returns h and c, each `(P, H)`, from the mean of the regions."""
        h, c = torch.tanh(self.initial(mean_region(features, self.present_in(features, present)))).chunk(2, -1)
        return {}, {"h": h, "c": c}

    def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None = None) -> Step:
        """See `Decoder.step`."""
        word = self.rnn_dropout(self.embedding(token))  # (B, E)
        h, c = lstm(self.rnn(torch.cat([word, state["h"]], -1)), state["c"])
        return Step(self.output(self.rnn_dropout(h)), {"h": h, "c": c}, None)
