"""The interface of all decoder families: a config, a step interface, the roles of the matrices, and three calls.

A family is one module with a config and an `nn.Module`, listed in `capprune.config.decoder.DECODERS` or declared by another
package under the entry point `capprune.decoders`. Training, pruning, export and search use only this interface.
docs/extending.md implements one from scratch.

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
    """How often a matrix is used, which determines the benefit of pruning and the storage format."""

    LOOKED_UP = "looked_up"  # one row per token: pruning saves bytes, but hardly any time
    PER_WORD = (
        "per_word"  # multiplied by one vector per token: pruning saves bytes and time; runtimes have sparse kernels
    )
    ELEMENTWISE = "elementwise"  # multiplied elementwise in `step`; stored dense
    PER_PHOTO = "per_photo"  # part of `encode`


IN_STEP = (Role.LOOKED_UP, Role.PER_WORD, Role.ELEMENTWISE)  # roles of the matrices that `step` uses


class Step(NamedTuple):
    """Result of one step for B hypotheses."""

    scores: Tensor  # (B, V), raw
    state: Tensors  # by the interface's names; for an appended tensor only the new slice
    attention: Tensor | None  # (B, R), sums to 1


class Decoder(nn.Module, ABC):
    """A caption decoder.

    Args:
        config: Sizes and dropout.
        features: F, channels of a region.
        vocabulary: V, number of tokens.
        regions: R, regions of a photo.
        max_tokens: T, the longest caption; a family that appends to its state allocates this many slices.
        padded: Whether photos may have fewer than R regions, padded with zeros.
    """

    Config: ClassVar[type[DecoderConfig]]
    supports_padding: ClassVar[bool] = False
    tied: ClassVar[Mapping[str, str]] = {}  # names of shared parameters

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
            raise ValueError(f"{config.family} needs a fixed number of regions")
        self.config, self.features, self.vocabulary = config, features, vocabulary
        self.regions, self.max_tokens, self.padded = regions, max_tokens, padded

    @abstractmethod
    def interface(self) -> StepInterface:
        """Return the tensors that `encode` returns, and those that `step` takes and returns."""

    @abstractmethod
    def roles(self) -> Mapping[str, Role]:
        """Return the role of each module whose `weight` can be pruned, by name. All other modules are dense."""

    @abstractmethod
    def describe(self) -> str:
        """Return a short description of the family, such as "LSTM with soft attention"."""

    @abstractmethod
    def encode(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """Project the features of P photos once.

        Args:
            features: `(P, R, F)`.
            present: `(P, R)`, 1 for a region and 0 for padding. With None all are regions; in a padded decoder, those that
                are not all zeros.

        Returns:
            The held tensors, each `(P, ...)`, and the first value of every state tensor that `encode` provides.
        """

    @abstractmethod
    def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None = None) -> Step:
        """Generate one word.

        Args:
            token: `(B,)` ids of the previous tokens.
            state: State tensors, each `(B, ...)`.
            held: Held tensors, each `(P, ...)`; B is a multiple of P, and the captions of a photo are adjacent.
            position: `(1,)` number of previous tokens, if the interface includes it.
        """

    def scores(self, features: Tensor, inputs: Tensor, targets: Tensor, present: Tensor | None = None) -> Tensor:
        """Return raw scores `(words, V)` of every word in `targets`, under teacher forcing.

        The default runs `step` word by word. A family may override it with a faster form that returns the same.

        Args:
            features: `(P, R, F)`.
            inputs: `(B, T)` input ids, starting with `<start>`; the captions of a photo are adjacent.
            targets: `(B, T)` ids to predict; negative after the end of a caption.
            present: See `encode`.
        """
        held, first = self.encode(features, present)
        state = self.begin(first, len(inputs))
        rows = []
        for t in range(inputs.shape[1]):
            found = self.step(inputs[:, t], state, held, self.position_at(t, inputs))
            rows.append(found.scores)
            if t + 1 < inputs.shape[1]:  # an appended state has no room after the last word of the longest caption
                state = self.advance(state, found, t)
        return torch.stack(rows, 1)[targets >= 0]

    def forward(self, features: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of whole captions in nats per word; see `scores` for shapes."""
        return nn.functional.cross_entropy(self.scores(features, inputs, targets), targets[targets >= 0])

    def begin(self, first: Tensors, rows: int) -> dict[str, Tensor]:
        """Return the state before the first word for `rows` hypotheses, the same number for each photo.

        Args:
            first: First states from `encode`, each `(P, ...)`.
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
        """Return the state after a step: replaced tensors, and appended tensors with their new slices."""
        after = {}
        for name, spec in self.interface().state.items():
            after[name] = found.state[name]
            if spec.carry == "append":
                before = state[name]
                place = torch.tensor([position], device=before.device)
                after[name] = before.index_copy(1, place, found.state[name].unsqueeze(1).to(before.dtype))
        return after

    def initialise(self) -> None:
        """Initialise all matrices by Glorot and Bengio (2010), uniformly, and all biases with zero; norms do not change."""
        roles = self.roles()
        for name, module in self.named_modules():  # in the module's order, so that a seed determines them
            if name in roles:
                nn.init.xavier_uniform_(module.get_parameter("weight"))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def matrices(self, *roles: Role) -> dict[str, Tensor]:
        """Return the weights with one of these roles, masks applied, by the parameter's name."""
        return {
            f"{name}.weight": self.get_submodule(name).get_parameter("weight").detach()
            for name, role in self.roles().items()
            if role in roles
        }

    def present_in(self, features: Tensor, present: Tensor | None) -> Tensor | None:
        """Return the mask for `encode`. In a padded decoder, a region of zeros counts as padding."""
        if present is None and self.padded:
            return (features != 0).any(-1).to(features.dtype)
        return present

    def position_at(self, position: int, beside: Tensor) -> Tensor | None:
        """Return the `position` argument of `step`, on the device of another tensor; None if `step` takes none."""
        if not self.interface().position:
            return None
        return torch.tensor([position], dtype=torch.int32, device=beside.device)


def mean_region(features: Tensor, present: Tensor | None) -> Tensor:
    """Return the mean over the regions of each photo, `(P, F)`; see `Decoder.encode` for the arguments."""
    if present is None:
        return features.mean(1)
    return (features * present.unsqueeze(-1)).sum(1) / present.sum(1, keepdim=True)


def spread(held: Tensor, rows: int) -> Tensor:
    """Repeat held tensors of P photos, `(P, ...)`, for their `rows` hypotheses, `(B, ...)`."""
    return held if held.shape[0] == rows else held.repeat_interleave(rows // held.shape[0], 0)
