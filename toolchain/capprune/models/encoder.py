"""The interface of all photo encoders: sizes, preprocessing, and a network in two parts.

An encoder is one module with a subclass of `Encoder`, listed in `capprune.config.encoder.ENCODERS` or declared by another
package under the entry point `capprune.encoders`. Training, pruning and export use only this interface.
docs/encoders.md lists them.

Shapes: B photos, S the side of a photo in pixels, F channels, G the side of the grid in cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from capprune.config.encoder import ENCODERS, EncoderConfig
from capprune.models.shapes import shapes_only
from capprune_runtime.errors import ConfigError

Numbers = tuple[float, float, float]  # of red, green and blue


class Encoder(nn.Module, ABC):
    """A network that maps photos to a grid of features.

    Its input is `(B, 3, S, S)` float32, RGB, `(x - mean) / scale` with x from 0 to 255. Its output is `(B, F, G, G)`.

    Args:
        config: The encoder's config, with `source` if the class reads one.

    Attributes:
        native_size: Side in pixels of the photos that the published weights were trained on.
        channels: F.
        stride: Side of a grid cell in pixels.
        stages: Largest value of `encoder.frozen_blocks`; 0 for a network that cannot be split.
        mean: Mean of each channel of a photo, on the scale 0 to 255.
        scale: Divisor of each channel after its mean is subtracted.
        published_by_package: Whether the weights come with a package of a fixed version; if not, checkpoints contain them.
    """

    native_size: ClassVar[int] = 224
    published_by_package: ClassVar[bool] = True
    channels: int
    stride: int
    stages: int = 0
    mean: Numbers
    scale: Numbers

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()

    @classmethod
    def defaults(cls, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return defaults for keys of `encoder` that a config does not set.

        Args:
            tree: The config's keys under `encoder`.

        Raises:
            ConfigError: The config has keys that this encoder does not support, or lacks some that it needs.
        """
        for key in ("source", "mean", "scale"):
            if tree.get(key) is not None:
                raise ConfigError(
                    f"this encoder does not support {key}",
                    where=f"encoder.{key}",
                    found=tree[key],
                    hint="leave it out, or set encoder.name=hf",
                )
        return {"size": cls.native_size}

    @classmethod
    @abstractmethod
    def pretrained(cls, config: EncoderConfig) -> Self:
        """Return the network with its published weights, in evaluation mode.

        Raises:
            MissingExtra: The package with the weights is not installed.
            CapPruneError: The weights do not exist or do not fit.
        """

    @abstractmethod
    def before(self, photo: Tensor, blocks: int) -> Tensor:
        """Return the output of the first `blocks` stages for photos `(B, 3, S, S)`; the photos themselves for 0."""

    @abstractmethod
    def after(self, x: Tensor, blocks: int) -> Tensor:
        """Return the grid `(B, F, G, G)` from the output of `before`."""

    def forward(self, photo: Tensor) -> Tensor:
        """Run the whole network; see the class for shapes."""
        return self.after(self.before(photo, 0), 0)

    def cells(self, size: int) -> int:
        """Return G for photos of `size` pixels a side.

        Raises:
            ConfigError: The network does not take photos of this size.
        """
        return -(-size // self.stride)

    def frozen_layers(self, blocks: int) -> tuple[str, ...]:
        """Return the names of the modules that `before` runs."""
        return ()

    def folded_filters(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return filters as converters store them, `(N, h, w, K)` with the batch norm folded in.

        Keys are `encoder.` and the name of the weight. Filters that are not included are stored dense.
        """
        return {}

    def identity(self) -> str:
        """Return the network's settings that determine the features, besides weights and class, as a string."""
        return ""

    def train(self, mode: bool = True) -> Self:
        """Set the mode of masks, if there are any. Batch norms always use their published statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def encoder_class(config: EncoderConfig) -> type[Encoder]:
    """Return the class of `encoder.name`."""
    kind: type[Encoder] = ENCODERS.load(config.name, "encoder.name")
    return kind


@lru_cache(maxsize=64)
def described(config: EncoderConfig) -> Encoder:
    """Return the encoder of a config without weights, for its channels, stride, stages and preprocessing."""
    with shapes_only():
        return encoder_class(config)(config)


def load_encoder(config: EncoderConfig) -> Encoder:
    """Return the encoder of a config with its published weights; see `Encoder.pretrained`."""
    return encoder_class(config).pretrained(config)
