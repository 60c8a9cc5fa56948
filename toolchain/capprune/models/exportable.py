"""The two calls of a captioning model as modules with named inputs and outputs: what an exporter converts.

Both take a batch of one. Names and shapes are those of docs/bundle_format.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capprune.models.caption_model import CaptionModel, region_count
from capprune.models.soft_attention import SoftAttention


class EncodeCall(nn.Module):
    """`encode`: photo `(1, S, S, 3)` to keys, values and the first state."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, photo: Tensor) -> dict[str, Tensor]:
        """See the class for shapes; channels come last, as phones and cameras have them."""
        encoded = self.model.encode(photo.permute(0, 3, 1, 2))
        state = self.model.decoder.first_state(encoded.h)
        names = self.model.decoder.state_names
        return {"keys": encoded.keys, "values": encoded.values, **dict(zip(names, state, strict=True))}

    def example(self) -> dict[str, Tensor]:
        """Inputs of the right shapes and types."""
        size = self.model.encoder.config.size
        return {"photo": torch.zeros(1, size, size, 3)}


class StepCall(nn.Module):
    """`step` with an LSTM or a GRU: token, state, keys and values to scores, state and attention."""

    def __init__(self, decoder: SoftAttention, regions: int) -> None:
        super().__init__()
        self.decoder, self.regions = decoder, regions

    def forward(
        self, token: Tensor, h: Tensor, keys: Tensor, values: Tensor, c: Tensor | None = None
    ) -> dict[str, Tensor]:
        """One word further; see `SoftAttention.step`."""
        scores, state, attention = self.decoder.step(token, (h,) if c is None else (h, c), keys, values)
        return {"scores": scores, **dict(zip(self.decoder.state_names, state, strict=True)), "attention": attention}

    def example(self) -> dict[str, Tensor]:
        """Inputs of the right shapes and types; the token is int32, as the runtimes take it."""
        shape = self.decoder.shape
        state = {name: torch.zeros(1, shape.hidden) for name in self.decoder.state_names}
        keys, values = torch.zeros(1, self.regions, shape.attention), torch.zeros(1, self.regions, shape.context)
        return {"token": torch.tensor([1], dtype=torch.int32), **state, "keys": keys, "values": values}


def exportable(model: CaptionModel) -> tuple[EncodeCall, StepCall]:
    """Both calls of a model, in evaluation mode."""
    regions = region_count(model.encoder.config)
    return EncodeCall(model).eval(), StepCall(model.decoder, regions).eval()
