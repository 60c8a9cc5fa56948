"""The encoder of a run: its weights beside the decoder's, and how a training step gets features from photos.

A checkpoint holds the encoder's tensors under `encoder.` if the run, or one that it started from, changed them. Other
runs use the published weights.
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


class InputTable(Protocol):
    """The model's input for the photos of a split, memory-mapped or not: takes indices `(P,)`, returns one row each."""

    shape: tuple[int, ...]

    def __getitem__(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[Any]: ...


class ChosenRows:
    """Some rows of a table, renumbered from 0.

    Attributes:
        shape: Shape of the chosen rows.
    """

    def __init__(self, table: InputTable, rows: Sequence[int]) -> None:
        self._table, self._rows = table, np.asarray(rows, np.int64)
        self.shape: tuple[int, ...] = (len(self._rows), *table.shape[1:])

    def __getitem__(self, photos: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """See `InputTable`."""
        return self._table[self._rows[np.asarray(photos, np.int64)]]


def of_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors of a checkpoint, under the names that they have in the network."""
    return {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}


def of_decoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the decoder's tensors of a checkpoint."""
    return {name: value for name, value in tensors.items() if not name.startswith(PREFIX)}


def encoder_network(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> Encoder:
    """Return the network of a run's encoder.

    Args:
        config: The encoder's config.
        tensors: The encoder's tensors of the checkpoint, masks applied.

    Raises:
        RuntimeError: The tensors do not fit the network.
    """
    own = of_encoder(tensors)
    if not own:
        return load_encoder(config)
    network = encoder_class(config)(config)
    network.load_state_dict(own)
    return network


@torch.no_grad()
def rounded_filters(network: Encoder) -> Encoder:
    """Return the network with every filter rounded to 255 steps between plus and minus its largest weight, as in int8.

    A batch norm that is multiplied into a filter scales the steps too. So export rounds the filter to the same steps.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            step = module.weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo().tiny) / INT8
            module.weight.copy_((module.weight / step).round() * step)
    return network


class Joined(nn.Module):
    """A decoder and its encoder's network in one module, to be pruned, optimised and saved together.

    The decoder's parameters keep their names; the network's parameters are under `encoder.`.

    Args:
        decoder: The decoder.
        network: The encoder's network, if it is trained.

    Raises:
        ValueError: The decoder has a part called `encoder`.
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
    """Computes features of photos: from cached rows, or with an encoder trained from its first or a later block on.

    Args:
        config: The encoder's config.

    Attributes:
        encoder: The trained encoder; None if features come from a cache.
        device: Device of the returned features.
    """

    def __init__(self, config: EncoderConfig) -> None:
        self.device = torch.device("cpu")
        self.encoder = None if config.train == "frozen" else GridEncoder(config)
        self._learns = config.train
        self._frozen = () if self.encoder is None else self.encoder.network.frozen_layers(config.frozen_blocks)

    def __call__(self, table: InputTable, photos: npt.NDArray[np.int64]) -> Tensor:
        """Return the features `(P, R, F)` of some photos.

        The table holds features. For a trained encoder it holds pixels `(S, S, 3)` or the output of the frozen blocks
        `(H, W, C)`.
        """
        shown = table[photos]
        if self.encoder is None:
            return torch.from_numpy(shown.astype(np.float32)).to(self.device)
        # channels last is a third faster on a CPU; weights keep their layout as the optimiser needs them contiguous
        pixels = not self._frozen
        seen = (
            self.encoder.normalised(shown) if pixels else torch.from_numpy(shown.astype(np.float32)).permute(0, 3, 1, 2)
        )
        return self.encoder.above(seen.to(self.device).contiguous(memory_format=torch.channels_last)).float()

    def move_to(self, device: torch.device) -> None:
        """Return features on this device from now on."""
        self.device = device
        if self.encoder is not None:
            self.encoder.to(device)

    def joined(self, decoder: Decoder) -> Joined:
        """Return the decoder, joined with the encoder's network if it is trained."""
        return Joined(decoder, None if self.encoder is None else self.encoder.network)

    def freeze_untrained(self) -> list[nn.Parameter]:
        """Freeze what is not trained, after gates and masks are added. Returns the trained weights of the encoder."""
        if self.encoder is None:
            return []
        learn = []
        for name, parameter in self.encoder.network.named_parameters():
            if not name.endswith(GATE):
                parameter.requires_grad_(self._learns == "all" and not any(belongs(name, one) for one in self._frozen))
                learn += [parameter] if parameter.requires_grad else []
        return learn
