"""The two calls of a captioning model as modules with named inputs and outputs, for exporters.

Both take a batch of one. Names and shapes are those of the decoder's interface.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capprune.models.caption_model import CaptionModel, GivenRegions
from capprune.models.family import Decoder
from capprune_runtime.bundle.interface import ATTENTION, POSITION, SCORES


class EncodeCall(nn.Module):
    """`encode`: photo `(1, S, S, 3)` to held tensors and the first state."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, photo: Tensor) -> dict[str, Tensor]:
        """Run the encoder; channels come last, as in images of phones and cameras."""
        held, first = self.model.encode(photo.permute(0, 3, 1, 2))
        return {**held, **first}

    def example(self) -> dict[str, Tensor]:
        """Return inputs of the right shapes and types."""
        size = self.model.encoder.config.size
        return {"photo": torch.zeros(1, size, size, 3)}


class EncodeRegionsCall(nn.Module):
    """`encode` of a model of region features: regions `(1, R, F)` and their mask to held tensors and the first state."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, regions: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Run the encoder; `present` `(1, R)` is 1 for a region and 0 for padding."""
        held, first = self.model.encode(regions, present)
        return {**held, **first}

    def example(self) -> dict[str, Tensor]:
        """Return inputs of the right shapes and types."""
        config = self.model.encoder.config
        return {"regions": torch.zeros(1, config.regions, config.channels), "present": torch.ones(1, config.regions)}


class StepCall(nn.Module):
    """`step`: token, position (if the family uses it), state and held tensors to scores, state and attention."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, token: Tensor, **tensors: Tensor) -> dict[str, Tensor]:
        """Generate one word; see `Decoder.step`."""
        interface = self.decoder.interface()
        state = {name: tensors[name] for name in interface.state}
        held = {name: tensors[name] for name in interface.held}
        found = self.decoder.step(token, state, held, tensors.get(POSITION))
        seen = {} if found.attention is None else {ATTENTION: found.attention}
        return {SCORES: found.scores, **{name: found.state[name] for name in state}, **seen}

    def example(self) -> dict[str, Tensor]:
        """Return inputs of the right shapes and types; token and position are int32, as runtimes require."""
        inputs = self.decoder.interface().step_inputs()
        return {name: _example(shape, dtype) for name, (shape, dtype) in inputs.items()}


def exportable(model: CaptionModel) -> tuple[EncodeCall | EncodeRegionsCall, StepCall]:
    """Return both calls of a model, in evaluation mode."""
    encode = EncodeRegionsCall if isinstance(model.encoder, GivenRegions) else EncodeCall
    return encode(model).eval(), StepCall(model.decoder).eval()


def _example(shape: tuple[int, ...], dtype: str) -> Tensor:
    return torch.ones(shape, dtype=torch.int32) if dtype == "int32" else torch.zeros(shape)
