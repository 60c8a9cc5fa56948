"""Photo in, caption out: the encoder and the decoder joined, in the two calls that are exported."""

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
    """Return the side of the grid that the network gives at the photo's size, in cells."""
    return described(config).cells(config.size)


def region_count(config: EncoderConfig) -> int:
    """R, the regions that attention chooses from."""
    if config.name == REGIONS:
        return config.regions
    return (config.grid or natural_grid(config)) ** 2


def pooling_matrix(cells: int, grid: int) -> Tensor:
    """Average pooling from `cells` x `cells` to `grid` x `grid` as one matrix `(grid², cells²)`.

    Cell borders as in adaptive average pooling: windows overlap where the sides do not divide. As a matrix it exports
    to one product instead of a chain of slices.
    """
    line = torch.zeros(grid, cells)
    for i in range(grid):
        low, high = i * cells // grid, -(-(i + 1) * cells // grid)
        line[i, low:high] = 1.0 / (high - low)
    return torch.kron(line, line)


def normalised(photos: npt.NDArray[np.uint8], mean: Numbers = DEFAULT_MEAN, scale: Numbers = DEFAULT_SCALE) -> Tensor:
    """Return photos `(B, S, S, 3)` uint8 as the network takes them: `(B, 3, S, S)` float32, `(x - mean) / scale`."""
    pixels = np.concatenate([normalise(photo, mean, scale) for photo in photos])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class GridEncoder(nn.Module):
    """The network and the pooling of its grid: photo `(B, 3, S, S)` to features `(B, R, F)`.

    Args:
        config: The encoder's config.
        network: The network; the one that the config names, with its published weights, if left out.

    Raises:
        ConfigError: If the grid asked for is finer than the network's own, or the network has fewer blocks.
    """

    pooling: Tensor | None

    def __init__(self, config: EncoderConfig, network: Encoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.network = network or load_encoder(config)
        cells = self.network.cells(config.size)
        if config.frozen_blocks > self.network.stages:
            raise ConfigError(
                "the encoder has fewer blocks",
                where="encoder.frozen_blocks",
                expected=f"at most {self.network.stages} for {config.name}",
                found=config.frozen_blocks,
            )
        if config.grid is not None and config.grid > cells:
            raise ConfigError(
                "the grid is finer than what the network sees",
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
        """Return photos `(B, S, S, 3)` uint8 as this network takes them."""
        return normalised(photos, self.network.mean, self.network.scale)

    def below(self, photo: Tensor) -> Tensor:
        """What never learns: photos `(B, 3, S, S)` to what leaves the last of `config.frozen_blocks`, `(B, C, H, W)`."""
        return self.network.before(photo, self.config.frozen_blocks)

    def above(self, x: Tensor) -> Tensor:
        """What may learn: what `below` gave to features `(B, R, F)`."""
        return self._grid(self.network.after(x, self.config.frozen_blocks))

    def _grid(self, x: Tensor) -> Tensor:
        features = x.flatten(2).transpose(1, 2)  # (B, cells, F)
        return features if self.pooling is None else self.pooling @ features


class FeatureExtractor:
    """The encoder as the feature cache sees it: uint8 photos in, float32 arrays out.

    Args:
        encoder: Is moved to the device.
        device: Where it runs. A GPU rounds otherwise than a CPU, so the key of its features names it.

    Attributes:
        key: Names weights, preprocessing, size and grid; a cache made under another key is another cache.
        size: The side of a photo, pixels.
        shape: `(R, F)` of one photo's features.
    """

    shape: tuple[int, ...]

    def __init__(self, encoder: GridEncoder, device: torch.device = CPU) -> None:
        config = encoder.config
        digest = _digest(encoder.network)
        self._device, self._encoder = device, _for_inference(encoder, device)
        self.size, self.shape = config.size, (region_count(config), encoder.network.channels)
        self.key = f"{config.name}-{digest}-{config.size}px-{region_count(config)}r{_on(device)}"

    @torch.inference_mode()
    def __call__(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """`(B, S, S, 3)` uint8 to `(B, R, F)` float32."""
        features: npt.NDArray[np.float32] = (
            self._encoder(self._encoder.normalised(photos).to(self._device)).cpu().numpy()
        )
        return features


class BlockExtractor:
    """The blocks of an encoder that never learn, as the feature cache sees them.

    Args:
        encoder: With `frozen_blocks`; is moved to the device.
        device: Where it runs; see `FeatureExtractor`.

    Attributes:
        key: Names weights, preprocessing, size and blocks.
        size: The side of a photo, pixels.
        shape: `(H, W, C)` of what the last of these blocks gives for one photo.
    """

    shape: tuple[int, ...]

    def __init__(self, encoder: GridEncoder, device: torch.device = CPU) -> None:
        config = encoder.config
        digest = _digest(encoder.network)
        self._device, self._encoder, self.size = device, _for_inference(encoder, device), config.size
        self.shape = self(np.zeros((1, config.size, config.size, 3), np.uint8)).shape[1:]
        self.key = f"{config.name}-{digest}-{config.size}px-{config.frozen_blocks} blocks{_on(device)}"

    @torch.inference_mode()
    def __call__(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """`(B, S, S, 3)` uint8 to `(B, H, W, C)` float32."""
        seen = self._encoder.below(self._encoder.normalised(photos).to(self._device))
        return seen.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _for_inference(encoder: GridEncoder, device: torch.device) -> GridEncoder:
    """The encoder with its channels last, which is a third faster on a CPU."""
    return encoder.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _on(device: torch.device) -> str:
    return "" if device.type == "cpu" else f" on {device.type}"


def _digest(network: Encoder) -> str:
    """What tells networks apart whose features differ; without more than weights for the usual preprocessing."""
    digest = hashlib.sha256(network.identity().encode())
    if (network.mean, network.scale) != (DEFAULT_MEAN, DEFAULT_SCALE):
        digest.update(f"{network.mean} {network.scale}".encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:12]


class GivenRegions(nn.Module):
    """In the place of an encoder where the features of regions are given: `(B, R, F)` as they are."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, regions: Tensor) -> Tensor:
        """Return the regions."""
        return regions


class CaptionModel(nn.Module):
    """Encoder and decoder together, for export and for captions from photos."""

    def __init__(self, encoder: GridEncoder | GivenRegions, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, photo: Tensor, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
        """Return what is held for photos, and the first state; see `Decoder.encode`.

        Args:
            photo: `(B, 3, S, S)`, or `(B, R, F)` where features are given.
            present: `(B, R)` where features are given.
        """
        return self.decoder.encode(self.encoder(photo), present)


def build_decoder(
    config: RunConfig, vocabulary: int, *, features: int | None = None, own: DecoderConfig | None = None
) -> Decoder:
    """Return the decoder of a run with weights as drawn.

    Args:
        config: The run's config.
        vocabulary: V, number of tokens.
        features: F, channels of a region; the encoder's if left out.
        own: The decoder's config where it differs from the run's, in dropout for example.

    Raises:
        ConfigError: Region features are given, and the family or a setting of the encoder does not fit them.
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
            "this decoder takes the same number of regions of every photo, and region features differ in it",
            where="decoder.family",
            expected=[one for one in DECODERS.names() if DECODERS.load(one, "decoder.family").supports_padding],
            found=name,
        )
    usual = {"grid": None, "train": "frozen", "rounded": False, "pooling": "average", "start": None}
    for key, value in usual.items():
        if getattr(encoder, key) != value:
            raise ConfigError(
                "there is no encoder where region features are given",
                where=f"encoder.{key}",
                expected=value,
                found=getattr(encoder, key),
            )
