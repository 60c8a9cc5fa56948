"""Photo in, caption out: the encoder and the decoder joined, in the two calls that are exported."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from capprune.config import DECODERS, DecoderConfig, EncoderConfig, RunConfig
from capprune.models.efficientnet_lite import CHANNELS, STRIDE, EfficientNetLite0, load_efficientnet_lite0
from capprune.models.family import Decoder, Tensors
from capprune_runtime.errors import ConfigError
from capprune_runtime.photo import normalise


def natural_grid(config: EncoderConfig) -> int:
    """The side of the grid that the network gives at the photo's size, in cells."""
    return -(-config.size // STRIDE)


def region_count(config: EncoderConfig) -> int:
    """R, the regions that attention chooses from."""
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


def normalised(photos: npt.NDArray[np.uint8]) -> Tensor:
    """Photos `(B, S, S, 3)` uint8 to what the network takes: `(B, 3, S, S)` float32, as the runtime normalises them."""
    pixels = np.concatenate([normalise(photo) for photo in photos])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class GridEncoder(nn.Module):
    """The CNN and the pooling of its grid: photo `(B, 3, S, S)` to features `(B, R, F)`.

    Raises:
        ConfigError: If the grid asked for is finer than the network's own.
    """

    pooling: Tensor | None

    def __init__(self, config: EncoderConfig, network: EfficientNetLite0 | None = None) -> None:
        super().__init__()
        self.config = config
        self.network = network or load_efficientnet_lite0()
        cells = natural_grid(config)
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

    Attributes:
        key: Names weights, size and grid; a cache made under another key is another cache.
        size: The side of a photo, pixels.
        shape: `(R, F)` of one photo's features.
    """

    shape: tuple[int, ...]

    def __init__(self, encoder: GridEncoder) -> None:
        config = encoder.config
        self._encoder = _for_inference(encoder)
        self.size, self.shape = config.size, (region_count(config), CHANNELS)
        self.key = f"{config.name}-{_digest(encoder.network)}-{config.size}px-{region_count(config)}r"

    @torch.inference_mode()
    def __call__(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """`(B, S, S, 3)` uint8 to `(B, R, F)` float32."""
        features: npt.NDArray[np.float32] = self._encoder(normalised(photos)).numpy()
        return features


class BlockExtractor:
    """The blocks of an encoder that never learn, as the feature cache sees them.

    Args:
        encoder: With `frozen_blocks`.

    Attributes:
        key: Names weights, size and blocks.
        size: The side of a photo, pixels.
        shape: `(H, W, C)` of what the last of these blocks gives for one photo.
    """

    shape: tuple[int, ...]

    def __init__(self, encoder: GridEncoder) -> None:
        config = encoder.config
        self._encoder, self.size = _for_inference(encoder), config.size
        self.shape = self(np.zeros((1, config.size, config.size, 3), np.uint8)).shape[1:]
        self.key = f"{config.name}-{_digest(encoder.network)}-{config.size}px-{config.frozen_blocks} blocks"

    @torch.inference_mode()
    def __call__(self, photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """`(B, S, S, 3)` uint8 to `(B, H, W, C)` float32."""
        return self._encoder.below(normalised(photos)).permute(0, 2, 3, 1).contiguous().numpy()


def _for_inference(encoder: GridEncoder) -> GridEncoder:
    """The encoder with its channels last, which is a third faster on a CPU."""
    return encoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _digest(network: EfficientNetLite0) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()[:12]


class CaptionModel(nn.Module):
    """Encoder and decoder together, for export and for captions from photos."""

    def __init__(self, encoder: GridEncoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, photo: Tensor) -> tuple[Tensors, Tensors]:
        """Return what is held for photos `(B, 3, S, S)`, and the first state; see `Decoder.encode`."""
        return self.decoder.encode(self.encoder(photo))


def build_decoder(
    config: RunConfig, vocabulary: int, *, features: int = CHANNELS, own: DecoderConfig | None = None
) -> Decoder:
    """Return the decoder of a run with weights as drawn.

    Args:
        config: Of the run.
        vocabulary: V, number of tokens.
        features: F, channels of a region.
        own: The decoder's config where it differs from the run's, in dropout for example.
    """
    chosen = own or config.decoder
    family: type[Decoder] = DECODERS.load(chosen.family, "decoder.family")
    return family(
        chosen,
        features=features,
        vocabulary=vocabulary,
        regions=region_count(config.encoder),
        max_tokens=config.data.steps,
    )
