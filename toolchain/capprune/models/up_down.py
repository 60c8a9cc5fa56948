"""Up-Down: an attention LSTM and a language LSTM.

After Anderson et al., "Bottom-Up and Top-Down Attention" (2018), in the form that the pruning papers train (Tan, Chan, Chuah,
2019). It takes the features of a grid, or of detected regions, of which a photo may have fewer than R. The first LSTM's input
from the mean region is the same for every word, so `encode` computes its product once per photo.

Shapes: P photos, B captions, R regions, F feature channels, E embedding, H hidden, A attention, V vocabulary.
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
from capprune.models.additive import attend
from capprune.models.cells import lstm, open_forget_gates
from capprune.models.chance import Dropout
from capprune.models.family import Decoder, Role, Step, Tensors, mean_region, spread
from capprune_runtime.bundle.interface import StateSpec, StepInterface, TensorSpec

HIDDEN_SCORE = 1e4  # subtracted from the score of padding, so that its attention is exactly 0 in float32


class UpDownDropout(DropoutConfig):
    """Cut to a third while masks are sampled."""

    words: float = Field(default=0.3, ge=0, lt=1, description="dropout rate of word vectors")
    regions: float = Field(default=0.3, ge=0, lt=1, description="dropout rate of projected regions and of their mean")
    output: float = Field(default=0.3, ge=0, lt=1, description="dropout rate of the input of the output layer")


class UpDownConfig(DecoderConfig):
    """Sizes of an Up-Down decoder."""

    family: Literal["up_down"] = "up_down"
    embedding: int = Field(default=256, ge=1, le=MOST_UNITS, description="size of a word vector")
    hidden: int = Field(
        default=512, ge=1, le=MOST_UNITS, description="size of both recurrent states, and of a projected region"
    )
    attention: int = Field(default=256, ge=1, le=MOST_UNITS, description="size of keys and queries")
    dropout: UpDownDropout = UpDownDropout()


class UpDown(Decoder):
    """Two LSTMs with additive attention between them."""

    Config: ClassVar[type[DecoderConfig]] = UpDownConfig
    supports_padding: ClassVar[bool] = True

    def __init__(self, config: UpDownConfig, *, features: int, vocabulary: int, **fixed: Any) -> None:
        super().__init__(config, features=features, vocabulary=vocabulary, **fixed)
        self.sizes = config
        hidden = config.hidden
        self.embedding = nn.Embedding(vocabulary, config.embedding)
        self.mean = nn.Linear(features, hidden)
        self.region = nn.Linear(features, hidden)
        self.key = nn.Linear(hidden, config.attention)
        self.seen = nn.Linear(hidden, 4 * hidden, bias=False)  # input of the first LSTM from the mean region
        self.looking = nn.Linear(hidden + config.embedding + hidden, 4 * hidden)  # reads h2, the word, h1
        self.query = nn.Linear(hidden, config.attention)
        self.score = nn.Linear(config.attention, 1, bias=False)
        self.speaking = nn.Linear(3 * hidden, 4 * hidden)  # reads the context, h1, h2
        self.output = nn.Linear(hidden, vocabulary)
        self.word_dropout = Dropout(config.dropout.words)
        self.region_dropout = Dropout(config.dropout.regions)
        self.output_dropout = Dropout(config.dropout.output)
        self.initialise()
        open_forget_gates(self.looking)
        open_forget_gates(self.speaking)

    def interface(self) -> StepInterface:
        """See `Decoder.interface`."""
        hidden, regions = self.sizes.hidden, self.regions
        held = {
            "keys": TensorSpec((regions, self.sizes.attention)),
            "values": TensorSpec((regions, hidden)),
            "seen": TensorSpec((4 * hidden,)),
            **({"fillers": TensorSpec((regions,))} if self.padded else {}),
        }
        state = {name: StateSpec((hidden,), first="zeros") for name in ("h1", "c1", "h2", "c2")}
        return StepInterface(self.vocabulary, held, state, regions)

    def roles(self) -> Mapping[str, Role]:
        """See `Decoder.roles`."""
        once = dict.fromkeys(("mean", "region", "key", "seen"), Role.PER_PHOTO)
        words = dict.fromkeys(("looking", "query", "speaking", "output"), Role.PER_WORD)
        return {"embedding": Role.LOOKED_UP, **once, **words, "score": Role.ELEMENTWISE}

    def describe(self) -> str:
        """See `Decoder.describe`."""
        return "Up-Down, two LSTMs with soft attention"

    def encode(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """See `Decoder.encode`; returns keys `(P, R, A)`, values `(P, R, H)`, seen `(P, 4H)`, and fillers `(P, R)` if padded."""
        present = self.present_in(features, present)
        values = self.region_dropout(torch.relu(self.region(features)))
        mean = self.region_dropout(torch.relu(self.mean(mean_region(features, present))))
        held = {"keys": self.key(values), "values": values, "seen": self.seen(mean)}
        if self.padded and present is not None:
            held["fillers"] = (present - 1) * HIDDEN_SCORE  # 0 for a region
        return held, {}

    def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None = None) -> Step:
        """See `Decoder.step`."""
        word = self.word_dropout(torch.relu(self.embedding(token)))  # (B, E)
        gates = self.looking(torch.cat([state["h2"], word, state["h1"]], -1)) + spread(
            held["seen"], token.shape[0]
        )  # not len(), which would fix B
        h1, c1 = lstm(gates, state["c1"])
        query = self.query(h1)
        context, attention = attend(query, held["keys"], held["values"], self.score.weight, held.get("fillers"))
        h2, c2 = lstm(self.speaking(torch.cat([context, h1, state["h2"]], -1)), state["c2"])
        scores = self.output(self.output_dropout(h2))
        return Step(scores, {"h1": h1, "c1": c1, "h2": h2, "c2": c2}, attention)
