"""The captioning model: encoder and decoder joined, as the two calls that are exported."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from capprune.config.decoder import DECODERS, DecoderConfig
from capprune.config.encoder import EncoderConfig
from capprune.config.run import RunConfig
from capprune.models.capsules import with_capsules
from capprune.models.encoder import Encoder, Numbers, described, load_encoder
from capprune.models.family import Decoder, Tensors
from capprune_runtime.bundle.preprocessing import REGIONS
from capprune_runtime.errors import ConfigError
from capprune_runtime.photo import DEFAULT_MEAN, DEFAULT_SCALE, normalise

CPU = torch.device("cpu")


def natural_grid(config: EncoderConfig) -> int:
    """Return the side of the network's grid for the config's photo size, in cells."""
    return described(config).cells(config.size)


def region_count(config: EncoderConfig) -> int:
    """Return R, the number of regions for the attention."""
    if config.name == REGIONS:
        return config.regions
    return (config.grid or natural_grid(config)) ** 2


def pooling_matrix(cells: int, grid: int) -> Tensor:
    """Return average pooling from `cells` x `cells` to `grid` x `grid` as one matrix `(grid², cells²)`.

    Windows are those of adaptive average pooling: they overlap if `grid` does not divide `cells`. A matrix is exported as
    one product instead of a chain of slices.
    """
    line = torch.zeros(grid, cells)
    for i in range(grid):
        low, high = i * cells // grid, -(-(i + 1) * cells // grid)
        line[i, low:high] = 1.0 / (high - low)
    return torch.kron(line, line)


def normalised(photos: npt.NDArray[np.uint8], mean: Numbers = DEFAULT_MEAN, scale: Numbers = DEFAULT_SCALE) -> Tensor:
    """Convert photos `(B, S, S, 3)` uint8 to the network's input `(B, 3, S, S)` float32, `(x - mean) / scale`."""
    pixels = np.concatenate([normalise(photo, mean, scale) for photo in photos])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class GridEncoder(nn.Module):
    """The network and the pooling of its grid: photo `(B, 3, S, S)` to features `(B, R, F)`.

    Args:
        config: The encoder's config.
        network: The network; by default the config's, with its published weights.

    Raises:
        ConfigError: The config's grid is finer than the network's, or the network has fewer blocks than `frozen_blocks`.
    """

    pooling: Tensor | None

    def __init__(self, config: EncoderConfig, network: Encoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.network = network or load_encoder(config)
        cells = self.network.cells(config.size)
        if config.frozen_blocks > self.network.stages:
            raise ConfigError(
                "the encoder does not have as many blocks",
                where="encoder.frozen_blocks",
                expected=f"at most {self.network.stages} for {config.name}",
                found=config.frozen_blocks,
            )
        if config.grid is not None and config.grid > cells:
            raise ConfigError(
                "the grid is finer than that of the network",
                where="encoder.grid",
                expected=f"at most {cells} for photos of {config.size} pixels",
                found=config.grid,
            )
        matrix = pooling_matrix(cells, config.grid) if config.grid not in (None, cells) else None
        self.register_buffer("pooling", matrix, persistent=False)

    def forward(self, photo: Tensor) -> Tensor:
        """See the class for shapes."""
        return self._grid(self.network(photo))

    def normalised(self, photos: npt.NDArray[np.uint8]) -> Tensor:
        """Convert photos `(B, S, S, 3)` uint8 to this network's input."""
        return normalised(photos, self.network.mean, self.network.scale)

    def below(self, photo: Tensor) -> Tensor:
        """Run the frozen part: photos `(B, 3, S, S)` to the output `(B, C, H, W)` of the last of `config.frozen_blocks`."""
        return self.network.before(photo, self.config.frozen_blocks)

    def above(self, x: Tensor) -> Tensor:
        """Run the trainable part: the output of `below` to features `(B, R, F)`."""
        return self._grid(self.network.after(x, self.config.frozen_blocks))

    def _grid(self, x: Tensor) -> Tensor:
        features = x.flatten(2).transpose(1, 2)  # (B, cells, F)
        return features if self.pooling is None else self.pooling @ features


class FeatureExtractor:
    """Computes features for the cache: uint8 photos to float32 arrays.

    Args:
        encoder: The encoder; it is moved to the device.
        device: Device of the computation. A GPU rounds differently from a CPU, so the key contains the device.

    Attributes:
        key: Identifies weights, preprocessing, size and grid; each key has a separate cache.
        size: Side of a photo in pixels.
        shape: `(R, F)` of one photo's features.
    """

    shape: tuple[int, ...]

    def __init__(self, encoder: GridEncoder, device: torch.device = CPU) -> None:
        config = encoder.config
        digest = network_digest(encoder.network)
        self._device, self._encoder = device, _for_inference(encoder, device)
        self.size, self.shape = config.size, (region_count(config), encoder.network.channels)
        self.key = f"{config.name}-{digest}-{config.size}px-{region_count(config)}r{_on(device)}"

    @torch.inference_mode()
    def __call__(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Convert photos `(B, S, S, 3)` uint8 to features `(B, R, F)` float32."""
        features: npt.NDArray[np.float32] = (
            self._encoder(self._encoder.normalised(photos).to(self._device)).cpu().numpy()
        )
        return features


class BlockExtractor:
    """Computes the output of an encoder's frozen blocks for the cache.

    Args:
        encoder: An encoder with `frozen_blocks`; it is moved to the device.
        device: Device of the computation; see `FeatureExtractor`.

    Attributes:
        key: Identifies weights, preprocessing, size and blocks.
        size: Side of a photo in pixels.
        shape: `(H, W, C)` of the last block's output for one photo.
    """

    shape: tuple[int, ...]

    def __init__(self, encoder: GridEncoder, device: torch.device = CPU) -> None:
        config = encoder.config
        digest = network_digest(encoder.network)
        self._device, self._encoder, self.size = device, _for_inference(encoder, device), config.size
        self.shape = self(np.zeros((1, config.size, config.size, 3), np.uint8)).shape[1:]
        self.key = f"{config.name}-{digest}-{config.size}px-{config.frozen_blocks} blocks{_on(device)}"

    @torch.inference_mode()
    def __call__(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Convert photos `(B, S, S, 3)` uint8 to outputs `(B, H, W, C)` float32."""
        seen = self._encoder.below(self._encoder.normalised(photos).to(self._device))
        return seen.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _for_inference(encoder: GridEncoder, device: torch.device) -> GridEncoder:
    """Return the encoder in the channels-last format, which is a third faster on a CPU."""
    return encoder.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _on(device: torch.device) -> str:
    return "" if device.type == "cpu" else f" on {device.type}"


def network_digest(network: Encoder) -> str:
    """Return a digest of settings and weights, and of mean and scale unless they are the defaults."""
    digest = hashlib.sha256(network.identity().encode())
    if (network.mean, network.scale) != (DEFAULT_MEAN, DEFAULT_SCALE):
        digest.update(f"{network.mean} {network.scale}".encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:12]


class GivenRegions(nn.Module):
    """Stands in for the encoder of a model of region features; returns the features `(B, R, F)` unchanged."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, regions: Tensor) -> Tensor:
        """Return the regions."""
        return regions


class CaptionModel(nn.Module):
    """Encoder and decoder, for export and for captions of photos."""

    def __init__(self, encoder: GridEncoder | GivenRegions, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, photo: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """Return the held tensors of photos, and the first state; see `Decoder.encode`.

        Args:
            photo: `(B, 3, S, S)`, or `(B, R, F)` for region features.
            present: `(B, R)` for region features.
        """
        return self.decoder.encode(self.encoder(photo), present)


def build_decoder(
    config: RunConfig, vocabulary: int, *, features: int | None = None, own: DecoderConfig | None = None
) -> Decoder:
    """Return the decoder of a run with initial weights.

    Args:
        config: The run's config.
        vocabulary: V, number of tokens.
        features: F, channels of a region; by default the encoder's.
        own: The decoder's config if it differs from the run's, for example in dropout.

    Raises:
        ConfigError: The run has region features, and the family or a setting of the encoder does not support them.
    """
    chosen, given = own or config.decoder, config.encoder.name == REGIONS
    family: type[Decoder] = DECODERS.load(chosen.family, "decoder.family")
    if given:
        _check_given_regions(config.encoder, family, chosen.family)
    if config.encoder.pooling == "capsules":
        family = with_capsules(family, config.encoder)
    return family(
        chosen,
        features=config.encoder.channels if given else features or described(config.encoder).channels,
        vocabulary=vocabulary,
        regions=region_count(config.encoder),
        max_tokens=config.data.steps,
        padded=given,
    )


def _check_given_regions(encoder: EncoderConfig, family: type[Decoder], name: str) -> None:
    if not family.supports_padding:
        raise ConfigError(
            "this decoder needs the same number of regions for every photo, which region features do not have",
            where="decoder.family",
            expected=[one for one in DECODERS.names() if DECODERS.load(one, "decoder.family").supports_padding],
            found=name,
        )
    usual = {"grid": None, "train": "frozen", "rounded": False, "pooling": "average", "start": None}
    for key, value in usual.items():
        if getattr(encoder, key) != value:
            raise ConfigError(
                "a run with region features has no encoder",
                where=f"encoder.{key}",
                expected=value,
                found=getattr(encoder, key),
            )
