"""Fixed masks, by which magnitude pruning, lottery tickets, SNIP and fine-tuning multiply the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from capprune.pruning.layers import trained_weight


class Mask(nn.Module):
    """A parametrization that multiplies a weight by zeros and ones.

    Attributes:
        mask: Booleans of the weight's shape `(N, K)`; removed weights get no gradient.
    """

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with zeros where the mask is closed."""
        return weight * self.mask


class Masks:
    """All masks of one model, open at first.

    Args:
        model: Masks are added to its matrices in place.
        modules: The modules whose `weight` is masked.
        widths: Weights per mask entry (consecutive in a row) in these modules; 1 elsewhere.
    """

    def __init__(self, model: nn.Module, modules: Iterable[str], widths: Mapping[str, int] | None = None) -> None:
        self.widths: dict[str, int] = {}
        self._masked: dict[str, Mask] = {}
        self._modules: dict[str, nn.Module] = {}
        for name in modules:
            module = model.get_submodule(name)
            mask = Mask(trained_weight(module))
            parametrize.register_parametrization(module, "weight", mask)
            self._masked[f"{name}.weight"], self._modules[f"{name}.weight"] = mask, module
            self.widths[f"{name}.weight"] = (widths or {}).get(name, 1)

    @property
    def size(self) -> int:
        """Total number of prunable weights."""
        return sum(mask.mask.numel() for mask in self._masked.values())

    def weights(self) -> dict[str, Tensor]:
        """Return the trained weights before masking, by name, removed ones included."""
        return {name: trained_weight(module) for name, module in self._modules.items()}

    def set(self, kept: Mapping[str, Tensor]) -> None:
        """Set the masks from booleans per gate `(N, K / B)` or per weight `(N, K)`.

        Raises:
            ValueError: If a mask does not fit its weight.
        """
        for name, one in kept.items():
            own = self._masked[name].mask
            width = 1 if one.shape == own.shape else self.widths[name]
            spread = one if width == 1 else one.repeat_interleave(width, dim=-1)
            if spread.shape != own.shape:
                raise ValueError(f"a mask {tuple(one.shape)} of width {width} does not fit {name} {tuple(own.shape)}")
            own.copy_(spread)

    def kept(self) -> dict[str, int]:
        """Return the number of weights that each tensor keeps."""
        return {name: int(mask.mask.sum()) for name, mask in self._masked.items()}

    def sparsity(self) -> float:
        """Return the share of the prunable weights that are removed."""
        return 1 - sum(self.kept().values()) / self.size
