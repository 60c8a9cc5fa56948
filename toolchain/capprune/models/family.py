"""What every decoder family is to the rest of capprune: a config, an interface, the roles of its matrices, and three calls.

A family is one module with a config and an `nn.Module` side by side, named in `capprune.config.decoder.DECODERS` or declared by
another package under the entry point `capprune.decoders`. Training, pruning, export and search use nothing beyond this class.
docs/extending.md writes one from scratch.

Shapes: P photos, n captions of each, B = P n, R regions, F feature channels, T tokens, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from capprune.config.decoder import DecoderConfig
from capprune_runtime.bundle.interface import StepInterface

Tensors = Mapping[str, Tensor]


class Role(StrEnum):
    """How often a matrix is used, which decides what pruning it brings and how it is stored."""

    LOOKED_UP = "looked_up"  # a row per token: bytes, hardly any time
    PER_WORD = (
        "per_word"  # multiplied by one vector per token: bytes and time; the runtimes have sparse kernels for these
    )
    ELEMENTWISE = "elementwise"  # multiplied element by element in `step`: dense in the file
    PER_PHOTO = "per_photo"  # part of `encode`


IN_STEP = (Role.LOOKED_UP, Role.PER_WORD, Role.ELEMENTWISE)  # roles of the matrices that `step` uses


class Step(NamedTuple):
    """What one step returns for B hypotheses."""

    scores: Tensor  # (B, V), raw
    state: Tensors  # by name as in the interface; an appended tensor is the new slice alone
    attention: Tensor | None  # (B, R), sums to 1


class Decoder(nn.Module, ABC):
    """A caption decoder.

    Args:
        config: Sizes and dropout.
        features: F, channels of a region.
        vocabulary: V, number of tokens.
        regions: R, regions of a photo.
        max_tokens: T, the longest caption; a family that appends to its state keeps room for as many.
        padded: Whether photos may have fewer than R regions, filled up with zeros.
    """

    Config: ClassVar[type[DecoderConfig]]
    supports_padding: ClassVar[bool] = False
    tied: ClassVar[Mapping[str, str]] = {}  # parameters that are another one, by name

    def __init__(
        self,
        config: DecoderConfig,
        *,
        features: int,
        vocabulary: int,
        regions: int = 49,
        max_tokens: int = 20,
        padded: bool = False,
    ) -> None:
        super().__init__()
        if padded and not self.supports_padding:
            raise ValueError(f"{config.family} takes a fixed number of regions")
        self.config, self.features, self.vocabulary = config, features, vocabulary
        self.regions, self.max_tokens, self.padded = regions, max_tokens, padded

    @abstractmethod
    def interface(self) -> StepInterface:
        """Return which tensors `encode` returns, and which ones `step` takes and returns."""

    @abstractmethod
    def roles(self) -> Mapping[str, Role]:
        """Return the role of each module whose `weight` may be pruned, by its name; all others stay dense."""

    @abstractmethod
    def describe(self) -> str:
        """Return the family and its kind in a few words, for people: "LSTM with soft attention"."""

    @abstractmethod
    def encode(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """Project the features of P photos once.

        Args:
            features: `(P, R, F)`.
            present: `(P, R)`, 1 for a region and 0 for a filler. None: all are regions, or in a padded decoder those that are
                not all zeros.

        Returns:
            What is held, each `(P, ...)`, and the first value of every state tensor that the interface says `encode` returns.
        """

    @abstractmethod
    def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None = None) -> Step:
        """Generate one word.

        Args:
            token: `(B,)` ids of the tokens before.
            state: Each `(B, ...)`.
            held: Each `(P, ...)`; B is a multiple of P, and the captions of a photo stand side by side.
            position: `(1,)` number of tokens before, where the interface asks for it.
        """

    def scores(self, features: Tensor, inputs: Tensor, targets: Tensor, present: Tensor | None = None) -> Tensor:
        """Return raw scores `(words, V)` of every word that `targets` holds, under teacher forcing.

        This is `step` word after word. A family may override it with something faster that returns the same.

        Args:
            features: `(P, R, F)`.
            inputs: `(B, T)` ids fed in, `<start>` first; the captions of a photo stand side by side.
            targets: `(B, T)` ids to predict; negative where a caption is over.
            present: See `encode`.
        """
        held, first = self.encode(features, present)
        state = self.begin(first, len(inputs))
        rows = []
        for t in range(inputs.shape[1]):
            found = self.step(inputs[:, t], state, held, self.position_at(t, inputs))
            rows.append(found.scores)
            if t + 1 < inputs.shape[1]:  # an appended state has no room behind the last word of the longest caption
                state = self.advance(state, found, t)
        return torch.stack(rows, 1)[targets >= 0]

    def forward(self, features: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of whole captions in nats per word; see `scores` for shapes."""
        return nn.functional.cross_entropy(self.scores(features, inputs, targets), targets[targets >= 0])

    def begin(self, first: Tensors, rows: int) -> dict[str, Tensor]:
        """Return the state before the first word for `rows` hypotheses, as many of each photo.

        Args:
            first: As `encode` returned it, each `(P, ...)`.
            rows: B, a multiple of P.
        """
        some = next(self.parameters())
        return {
            name: first[name].repeat_interleave(rows // len(first[name]), 0)
            if spec.first == "encode"
            else torch.zeros(rows, *spec.shape, dtype=some.dtype, device=some.device)
            for name, spec in self.interface().state.items()
        }

    def advance(self, state: Tensors, found: Step, position: int) -> dict[str, Tensor]:
        """Return the state after a step: replaced tensors as they are, new slices in their place."""
        after = {}
        for name, spec in self.interface().state.items():
            after[name] = found.state[name]
            if spec.carry == "append":
                before = state[name]
                place = torch.tensor([position], device=before.device)
                after[name] = before.index_copy(1, place, found.state[name].unsqueeze(1).to(before.dtype))
        return after

    def initialise(self) -> None:
        """Draw all matrices as Xavier and Glorot (2010) do, uniformly, and set all biases to zero; norms stay as they are."""
        roles = self.roles()
        for name, module in self.named_modules():  # in the order of the module, which a seed then decides
            if name in roles:
                nn.init.xavier_uniform_(module.get_parameter("weight"))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def matrices(self, *roles: Role) -> dict[str, Tensor]:
        """Return the weights that have one of these roles, masks applied, by the name of the parameter."""
        return {
            f"{name}.weight": self.get_submodule(name).get_parameter("weight").detach()
            for name, role in self.roles().items()
            if role in roles
        }

    def present_in(self, features: Tensor, present: Tensor | None) -> Tensor | None:
        """Return `present` as `encode` takes it; in a padded decoder a region of zeros alone is a filler."""
        if present is None and self.padded:
            return (features != 0).any(-1).to(features.dtype)
        return present

    def position_at(self, position: int, beside: Tensor) -> Tensor | None:
        """Return the position as `step` takes it, on the device of another tensor; None where it takes none."""
        if not self.interface().position:
            return None
        return torch.tensor([position], dtype=torch.int32, device=beside.device)


def mean_region(features: Tensor, present: Tensor | None) -> Tensor:
    """Return the mean over the regions of each photo, `(P, F)`; see `Decoder.encode` for the arguments."""
    if present is None:
        return features.mean(1)
    return (features * present.unsqueeze(-1)).sum(1) / present.sum(1, keepdim=True)


def spread(held: Tensor, rows: int) -> Tensor:
    """Repeat what is held of P photos, `(P, ...)`, for the `rows` hypotheses of all of them, `(B, ...)`."""
    return held if held.shape[0] == rows else held.repeat_interleave(rows // held.shape[0], 0)
