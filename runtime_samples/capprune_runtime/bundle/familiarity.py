"""Whether a photo looks like those that a bundle's limits were chosen on, from what `encode` returns.

The channels of all outputs of `encode` are averaged over the photo and pooled into a few numbers. A weighted sum of them
and of the caption's mean log-probability gives the confidence. Section 4 of docs/bundle_format.md is the specification.
Java and the browser compute the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from capprune_runtime import strict_json
from capprune_runtime.bundle.interface import StepInterface
from capprune_runtime.bundle.manifest import QUALITY
from capprune_runtime.errors import BundleError

KEY: Final = "familiarity"
MAX_WEIGHTS: Final = 4096
LARGEST: Final = 1e6  # largest weight or offset
STEEPEST: Final = 30.0  # the sum is clipped to this, so that no runtime overflows; 1e-13 away from 0 and 1
KNOWN: Final = 0.5  # photos of a lower confidence are not familiar
SURE: Final = 0.7  # captions of photos of a lower confidence are marked as unsure


@dataclass(frozen=True)
class Familiarity:
    """The limits of a bundle.

    Attributes:
        weights: One for each pooled channel.
        log_probability: Weight of the caption's mean log-probability per word.
        offset: Added to the sum.
    """

    weights: tuple[float, ...]
    log_probability: float
    offset: float

    def confidence(self, pooled: NDArray[np.float64], mean_log_probability: float) -> float:
        """Return the confidence, 0 to 1, that the photo is of the known kind and its caption likely.

        Args:
            pooled: What `pool` returns for the photo.
            mean_log_probability: Nats per word of the caption.

        Raises:
            BundleError: An output of `encode` is not finite.
        """
        total = self.offset + self.log_probability * mean_log_probability
        for weight, value in zip(self.weights, pooled.tolist(), strict=True):
            total += weight * value
        if not math.isfinite(total):
            raise BundleError("the encoder returned numbers that are not finite", found=total)
        return 1 / (1 + math.exp(-min(max(total, -STEEPEST), STEEPEST)))


def pool(encoded: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.float64]:
    """Return the pooled channels of a photo.

    Args:
        encoded: Outputs of `encode` by name, each (1, ..., channels).
        count: N, the number of pooled channels.

    Returns:
        (N) float64: the mean over each of N runs of neighbouring channels, after the mean over all other dimensions.
    """
    parts = [encoded[name][0].astype(np.float64) for name in sorted(encoded)]
    channels = np.concatenate([part.reshape(-1, part.shape[-1]).mean(axis=0) for part in parts])
    runs = np.arange(len(channels)) * count // len(channels)
    return np.bincount(runs, weights=channels, minlength=count) / np.bincount(runs, minlength=count)


def channel_count(interface: StepInterface) -> int:
    """Return the number of channels of all outputs of `encode`."""
    return sum(shape[-1] for shape, _ in interface.encode_outputs().values())


def familiarity_of(files: Mapping[str, bytes], interface: StepInterface, place: Path) -> Familiarity | None:
    """Read and check the limits of a bundle; None if it has none.

    `capprune validate --record` chooses them and writes them to quality.json. A quality.json without the quoted key is not
    parsed.

    Args:
        files: The bundle's files by name.
        interface: Inputs and outputs of its decoder.
        place: The bundle, for messages.

    Raises:
        BundleError: A value is missing, of another type or out of range.
    """
    content = files.get(QUALITY, b"")
    if f'"{KEY}"'.encode() not in content:
        return None
    try:
        quality = strict_json.parse(content)
        tree = quality.get(KEY) if isinstance(quality, dict) else None
        return None if tree is None else _read(tree, min(MAX_WEIGHTS, channel_count(interface)))
    except BundleError as error:
        error.where = f"{place / QUALITY}" if error.where is None else f"{place / QUALITY}, {error.where}"
        raise


def _read(tree: Any, most: int) -> Familiarity:
    """Return the limits from the parsed object, with at most `most` weights."""
    if not isinstance(tree, dict):
        raise _refused("", "an object", tree)
    weights = tree.get("weights")
    if not isinstance(weights, list) or not 1 <= len(weights) <= most:
        raise _refused(".weights", f"1 to {most} numbers", weights)
    numbers: Sequence[tuple[str, Any]] = [
        *((f".weights[{place}]", one) for place, one in enumerate(weights)),
        (".log_probability", tree.get("log_probability")),
        (".offset", tree.get("offset")),
    ]
    for key, one in numbers:
        if isinstance(one, bool) or not isinstance(one, int | float) or not abs(one) <= LARGEST:
            raise _refused(key, f"a number from {-LARGEST:.0f} to {LARGEST:.0f}", one)
    return Familiarity(tuple(map(float, weights)), float(tree["log_probability"]), float(tree["offset"]))


def _refused(key: str, expected: str, found: object) -> BundleError:
    return BundleError("a value of the familiarity is not allowed", where=f"{KEY}{key}",
                       expected=expected, found=repr(found)[:60])  # fmt: skip
