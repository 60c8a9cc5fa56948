"""A decoder family in one file: a plain recurrent network that reads the mean of the photo's regions at every word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from capprune.config.decoder import DecoderConfig
from capprune.models.family import Decoder, Role, Step, Tensors, mean_region, spread
from capprune_runtime.bundle.interface import StateSpec, StepInterface, TensorSpec


class PlainRnnConfig(DecoderConfig):
    """What a user may set under `decoder:`; unknown keys are refused with the nearest name."""

    family: Literal["plain_rnn"] = "plain_rnn"
    embedding: int = Field(default=64, ge=1)
    hidden: int = Field(default=128, ge=1)


class PlainRnn(Decoder):
    """h' = tanh(W [word, photo, h])."""

    Config: ClassVar[type[DecoderConfig]] = PlainRnnConfig
    supports_padding: ClassVar[bool] = True

    def __init__(self, config: PlainRnnConfig, *, features: int, vocabulary: int, **fixed: Any) -> None:
        super().__init__(config, features=features, vocabulary=vocabulary, **fixed)
        self.hidden = config.hidden
        self.embedding = nn.Embedding(vocabulary, config.embedding)
        self.photo = nn.Linear(features, config.hidden)
        self.recurrent = nn.Linear(config.embedding + 2 * config.hidden, config.hidden)
        self.output = nn.Linear(config.hidden, vocabulary)
        self.initialise()

    def interface(self) -> StepInterface:
        """One vector is held per photo; one vector goes from word to word and starts at zero."""
        return StepInterface(
            self.vocabulary,
            held={"photo": TensorSpec((self.hidden,))},
            state={"h": StateSpec((self.hidden,), first="zeros")},
        )

    def roles(self) -> Mapping[str, Role]:
        """What is named here can be pruned; all else stays dense."""
        return {
            "embedding": Role.LOOKED_UP,
            "photo": Role.PER_PHOTO,
            "recurrent": Role.PER_WORD,
            "output": Role.PER_WORD,
        }

    def describe(self) -> str:
        """For model cards and reports."""
        return "plain recurrent network"

    def encode(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """Once per photo."""
        return {"photo": torch.relu(self.photo(mean_region(features, present)))}, {}

    def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None = None) -> Step:
        """Once per word; B hypotheses, as many of each photo."""
        photo = spread(held["photo"], token.shape[0])
        h = torch.tanh(self.recurrent(torch.cat([self.embedding(token), photo, state["h"]], -1)))
        return Step(self.output(h), {"h": h}, None)
