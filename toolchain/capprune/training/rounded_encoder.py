"""The encoder of a run in few values, fitted on photos of its own train split, computed once and kept in the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load, save

from capprune.config.run import RunConfig
from capprune.data.captions import load_caption_set
from capprune.data.photos import open_photos
from capprune.models.caption_model import network_digest
from capprune.models.encoder import Encoder
from capprune.rounding import codebook, encoder
from capprune.rounding.encoder import coded_filters
from capprune.training.progress import Lines
from capprune_runtime.bundle.cache import kept_or_made, user_cache
from capprune_runtime.errors import ConfigError, DataError, PhotoError
from capprune_runtime.photo import decode_photo, resize

PHOTOS = 1024  # spread over the train split
FOLDER = "rounded"  # in the cache
MOST_CACHED_BYTES = 256 << 20  # beyond this the oldest encoders are removed


def coded_encoder(config: RunConfig, network: Encoder, *, bits: float | None) -> Encoder:
    """Return the network with few values in each layer, fitted on train photos of `data.folder`.

    Args:
        config: The run's config.
        network: The encoder before rounding.
        bits: Entropy of a weight; None for 16 values in each layer.

    Raises:
        ConfigError: The run reads shards, which have no photos to fit on.
        DataError: The train split is empty, or a photo cannot be read.
    """
    if config.data.shards is not None:
        raise ConfigError(
            "rounding to few values needs photos, and shards are read only while training",
            where="encoder.rounded",
            found=f"{config.encoder.rounded} with data.shards",
            hint="round with data.folder first, and give that run as encoder.start",
        )
    photos = _photos(config)
    base = user_cache()
    place = None if base is None else base / FOLDER / f"{_digest(network, photos, bits)}.safetensors"

    def make() -> bytes:
        with Lines().bar("rounded layers") as tell:
            made = coded_filters(network, photos, tell, bits=bits).state_dict()
        return save({name: value.contiguous() for name, value in made.items()})

    network.load_state_dict(load(kept_or_made(place, make, MOST_CACHED_BYTES)))
    return network.eval()


def _photos(config: RunConfig) -> npt.NDArray[np.uint8]:
    """Return photos of train, `(B, S, S, 3)`, spread over the split."""
    folder, size = config.data.folder, config.encoder.size
    train = [photo.name for photo in load_caption_set(folder).split("train")[: config.data.limit]]
    names = [train[place] for place in np.linspace(0, len(train) - 1, min(PHOTOS, len(train))).astype(int)]
    found = []
    with open_photos(folder) as store:
        for name in names:
            try:
                found.append(resize(decode_photo(store.read(name), name), size))
            except PhotoError:
                if config.data.broken != "skip":  # training counts and names them
                    raise
    if not found:
        raise DataError("no photo to round the encoder with can be read", where=folder, expected="at least one")
    return np.stack(found)


def _digest(network: Encoder, photos: npt.NDArray[np.uint8], bits: float | None) -> str:
    """Return a name for what the rounded encoder depends on: network, photos, bits, and the code that rounds."""
    digest = hashlib.sha256(f"{network_digest(network)} {bits} {photos.shape}".encode() + photos.tobytes())
    for source in (codebook.__file__, encoder.__file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:32]
