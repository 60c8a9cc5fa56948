"""Capsule pooling: routes a grid of features to a few capsules, which the decoder uses as its regions.

Routing by agreement as in Sabour et al., "Dynamic Routing Between Capsules" (2017): each region votes for every capsule, and
votes that agree with a capsule get a higher weight in the next round. The module is trained with the decoder, also when the
encoder is frozen, and is exported as part of `encode`. Sums and softmax use the last axis, which both runtimes support.

Shapes: P photos, R regions, F channels of a region, N capsules, D channels of a capsule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from capprune.config.decoder import DecoderConfig
from capprune.config.encoder import EncoderConfig
from capprune.models.family import Decoder, Role, Step, Tensors
from capprune_runtime.bundle.interface import StepInterface

EPSILON = 1e-9  # added before square roots: their slope at 0 is infinite, and some kernels fail at 0
PROJECTION = "pooling.project"  # name of the votes' matrix in the decoder


class CapsulePooling(nn.Module):
    """Pools features `(P, R, F)` to capsules `(P, N, D)`.

    Args:
        features: F.
        capsules: N.
        channels: D.
        rounds: Number of routing rounds; with 1, every capsule is the mean of its votes.
    """

    def __init__(self, features: int, capsules: int, channels: int, rounds: int) -> None:
        super().__init__()
        self.capsules, self.channels, self.rounds = capsules, channels, rounds
        self.project = nn.Linear(features, capsules * channels)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, features: Tensor) -> Tensor:
        """See the class for shapes."""
        regions = features.shape[1]
        votes = (
            self.project(features).reshape(-1, regions, self.capsules, self.channels).transpose(1, 2)
        )  # (P, N, R, D)
        pooled = _squashed(votes.mean(2))  # (P, N, D)
        agreement = torch.zeros(1, 1, 1, device=features.device)
        for _ in range(self.rounds - 1):
            agreement = agreement + (votes * pooled.unsqueeze(2)).sum(-1)  # (P, N, R)
            shares = torch.softmax(agreement.transpose(1, 2), -1).transpose(1, 2)
            pooled = _squashed((shares.unsqueeze(-1) * votes).sum(2))
        return pooled


def _squashed(x: Tensor) -> Tensor:
    """Scale vectors to a length below 1, in the same direction."""
    squared = (x * x).sum(-1, keepdim=True)
    return x * (torch.sqrt(squared + EPSILON) / (1 + squared))


def with_capsules(family: type[Decoder], encoder: EncoderConfig) -> type[Decoder]:
    """Return a decoder family whose module `pooling` pools the grid to capsules before all other layers.

    Args:
        family: The decoder's family.
        encoder: Encoder config with the sizes of the capsules.
    """

    class Pooled(family):  # type: ignore[misc, valid-type]  # the base class is a runtime value
        """The family with capsule pooling in front."""

        def __init__(self, config: DecoderConfig, *, features: int, **sizes: Any) -> None:
            seen = {**sizes, "regions": encoder.capsules}
            super().__init__(config, features=encoder.capsule_channels, **seen)
            self.pooling = CapsulePooling(
                features, encoder.capsules, encoder.capsule_channels, encoder.routing_iterations
            )

        def interface(self) -> StepInterface:
            """Return the family's interface without attention, because capsules have no position in the photo."""
            own: StepInterface = super().interface()
            return replace(own, regions=None)

        def step(self, token: Tensor, state: Tensors, held: Tensors, position: Tensor | None = None) -> Step:
            """See `Decoder.step`."""
            found: Step = super().step(token, state, held, position)
            return found._replace(attention=None)

        def roles(self) -> Mapping[str, Role]:
            """Return the family's roles, and the role of the votes' matrix."""
            return {**super().roles(), PROJECTION: Role.PER_PHOTO}

        def describe(self) -> str:
            """Return the family's description with the pooling."""
            return f"{super().describe()}, {encoder.capsules} capsules"

        def encode(self, features: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
            """Pool the grid, then encode the capsules; see `Decoder.encode`."""
            if present is not None:
                raise ValueError("capsules need a grid with a fixed number of regions")
            found: tuple[Tensors, Tensors] = super().encode(self.pooling(features))
            return found

    Pooled.__name__ = Pooled.__qualname__ = family.__name__
    return Pooled
