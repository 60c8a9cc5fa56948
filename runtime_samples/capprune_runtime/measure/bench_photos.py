"""The photos on which a bundle is timed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.preprocessing import RegionsSection
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.proof import read_golden

DRAWN = "drawn"  # the name of the generated photo for bundles without golden photos


def bench_photos(bundle: Bundle) -> list[tuple[str, NDArray[Any]]]:
    """Return the photos to time a bundle on, by name: its golden photos, or one of noise without them."""
    if golden := read_golden(bundle):
        return [(photo.name, photo.photo) for photo in golden]
    preprocessing, random = bundle.manifest.preprocessing, np.random.default_rng(0)
    if isinstance(preprocessing, RegionsSection):
        regions = random.standard_normal((preprocessing.regions, preprocessing.channels))
        return [(DRAWN, np.maximum(regions, 0).astype(np.float32))]
    size = preprocessing.size
    return [(DRAWN, random.integers(0, 256, (size, size, 3), dtype=np.uint8))]
