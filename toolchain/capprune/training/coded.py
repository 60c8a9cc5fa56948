"""The rounded encoder of a run, on photos of its own train split, computed once and kept in the cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file, save_file

from capprune.config.run import RunConfig
from capprune.data.cache_folder import default_cache
from capprune.data.captions import load_caption_set
from capprune.data.features import cached_pixels
from capprune.data.photos import open_photos
from capprune.models.encoder import Encoder
from capprune.rounding import codebook, encoder
from capprune.rounding.encoder import coded_filters
from capprune.training.progress import Lines
from capprune_runtime.atomic import atomic_file
from capprune_runtime.errors import ConfigError

PHOTOS = 1024  # spread over the train split
FOLDER = "rounded"  # in the cache


def coded_encoder(config: RunConfig, network: Encoder) -> Encoder:
    """Return the network with 16 values in each layer, fitted on photos of the run's train split.

    Args:
        config: The run's config.
        network: The encoder before rounding.

    Raises:
        ConfigError: The run reads shards, which have no photos to fit on.
        DataError: The train split is empty, or a photo cannot be read.
    """
    if config.data.shards is not None:
        raise ConfigError(
            "rounding to 16 values needs photos, and shards are read only while training",
            where="encoder.rounded",
            found="codebook4 with data.shards",
            hint="round with data.folder first, and give that run as encoder.start",
        )
    folder = config.data.folder
    train = [photo.name for photo in load_caption_set(folder).split("train")[: config.data.limit]]
    names = [train[place] for place in np.linspace(0, len(train) - 1, min(PHOTOS, len(train))).astype(int)]
    with open_photos(folder) as store, Lines().bar("photos to round the encoder with") as tell:
        seen = cached_pixels(
            store,
            names,
            size=config.encoder.size,
            cache=default_cache(),
            progress=tell,
            skip_broken=config.data.broken == "skip",
        )
    photos = seen[np.array([place for place in range(len(names)) if place not in seen.broken], np.int64)]
    kept = default_cache() / FOLDER / f"{_digest(network, photos)}.safetensors"
    if kept.is_file():
        network.load_state_dict(load_file(kept))
        return network.eval()
    with Lines().bar("rounded layers") as tell:
        found = coded_filters(network, photos, tell)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(kept) as path:
        save_file({name: value.contiguous() for name, value in found.state_dict().items()}, path)
    return found


def _digest(network: Encoder, photos: npt.NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(network.identity().encode())
    for source in (codebook.__file__, encoder.__file__):
        digest.update(Path(source).read_bytes())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    digest.update(str(photos.shape).encode() + photos.tobytes())
    return digest.hexdigest()[:32]
