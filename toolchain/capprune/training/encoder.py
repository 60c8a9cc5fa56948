"""The encoder of a run: its weights among the decoder's, and how a training step sees photos through it.

A checkpoint holds the encoder's tensors under `encoder.`, where the run or one that it started from changed them; other
runs see through the published weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from capprune.config.encoder import EncoderConfig
from capprune.models.caption_model import GridEncoder
from capprune.models.encoder import Encoder, encoder_class, load_encoder
from capprune.models.family import Decoder, Role
from capprune.pruning.layers import ENCODER, belongs
from capprune.pruning.state import GATE

PREFIX = f"{ENCODER}."
INT8 = 127  # the largest integer of a filter


class Table(Protocol):
    """What a model is shown of a split's photos: indices `(P,)` in, a row each out; memory-mapped or not."""

    shape: tuple[int, ...]

    def __getitem__(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[Any]: ...


class ChosenRows:
    """Some rows of a table, under new numbers.

    Attributes:
        shape: Of these rows.
    """

    def __init__(self, table: Table, rows: Sequence[int]) -> None:
        self._table, self._rows = table, np.asarray(rows, np.int64)
        self.shape: tuple[int, ...] = (len(self._rows), *table.shape[1:])

    def __getitem__(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """See `Table`."""
        return self._table[self._rows[np.asarray(photos, np.int64)]]


def of_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors of a checkpoint, under the names that the network has for them."""
    return {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}


def of_decoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's tensors of a checkpoint."""
    return {name: value for name, value in tensors.items() if not name.startswith(PREFIX)}


def encoder_network(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> Encoder:
    """The network that a run sees through.

    Args:
        config: Of the encoder.
        tensors: Of its checkpoint, masks applied.

    Raises:
        RuntimeError: If they do not fit the network.
    """
    own = of_encoder(tensors)
    if not own:
        return load_encoder(config)
    network = encoder_class(config)(config)
    network.load_state_dict(own)
    return network


@torch.no_grad()
def rounded_filters(network: Encoder) -> Encoder:
    """The network with every filter rounded to 255 steps between plus and minus its largest weight, as int8 stores it.

    A batch norm that is multiplied into a filter scales the steps with it, so that the filter is rounded to the same
    steps when it is exported.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            step = module.weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo().tiny) / INT8
            module.weight.copy_((module.weight / step).round() * step)
    return network


class Joined(nn.Module):
    """A decoder and the encoder's network beside it: one thing to prune, to optimise and to save.

    Everything of the decoder keeps its name; the network's parameters stand under `encoder.`.

    Args:
        decoder: The decoder.
        network: The encoder's network where it learns.

    Raises:
        ValueError: The decoder has a part that is called `encoder` itself.
    """

    def __init__(self, decoder: Decoder, network: nn.Module | None = None) -> None:
        super().__init__()
        if hasattr(decoder, ENCODER):
            raise ValueError(f"a part of {type(decoder).__name__} is called {ENCODER}, as the photo encoder is")
        for name, child in decoder.named_children():
            self.add_module(name, child)
        for name, parameter in decoder.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in decoder.named_buffers(recurse=False):
            self.register_buffer(name, buffer, persistent=name in decoder.state_dict())
        self._roles = dict(decoder.roles())
        self.attended = decoder.interface().attended
        if network is not None:
            self.add_module(ENCODER, network)

    def roles(self) -> Mapping[str, Role]:
        """Return the roles of the decoder's matrices; convolutions of the network have none."""
        return self._roles


class Sight:
    """From photos to features: the rows of a cache, or an encoder that learns, from its first block or a later one.

    Args:
        config: Of the encoder.

    Attributes:
        encoder: That learns; None where features come from a cache.
        device: Where features are wanted.
    """

    def __init__(self, config: EncoderConfig) -> None:
        self.device = torch.device("cpu")
        self.encoder = None if config.train == "frozen" else GridEncoder(config)
        self._learns = config.train
        self._frozen = () if self.encoder is None else self.encoder.network.frozen_layers(config.frozen_blocks)

    def __call__(self, table: Table, photos: npt.NDArray[np.int64]) -> Tensor:
        """Features `(P, R, F)` of some photos.

        The table holds such features; or, for an encoder that learns, pixels `(S, S, 3)` or what its frozen blocks give,
        `(H, W, C)`.
        """
        shown = table[photos]
        if self.encoder is None:
            return torch.from_numpy(shown.astype(np.float32)).to(self.device)
        # channels last is a third faster on a CPU; weights stay as they are, for an optimiser that reads them in one run
        pixels = not self._frozen
        seen = (
            self.encoder.normalised(shown) if pixels else torch.from_numpy(shown.astype(np.float32)).permute(0, 3, 1, 2)
        )
        return self.encoder.above(seen.to(self.device).contiguous(memory_format=torch.channels_last)).float()

    def move_to(self, device: torch.device) -> None:
        """Give features on this device from now on."""
        self.device = device
        if self.encoder is not None:
            self.encoder.to(device)

    def joined(self, decoder: Decoder) -> Joined:
        """Return the decoder and, where it learns, the encoder's network as one module."""
        return Joined(decoder, None if self.encoder is None else self.encoder.network)

    def settle(self) -> list[nn.Parameter]:
        """Fix what does not learn, once gates and masks are in place; returns the weights that do."""
        if self.encoder is None:
            return []
        learn = []
        for name, parameter in self.encoder.network.named_parameters():
            if not name.endswith(GATE):
                parameter.requires_grad_(self._learns == "all" and not any(belongs(name, one) for one in self._frozen))
                learn += [parameter] if parameter.requires_grad else []
        return learn
