"""The input of `encode`: a photo of a given size and its normalisation, or region features."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from capprune_runtime.formats import Signature

RESIZE = "squash-triangle-q15"
MAX_REGIONS = 1024
PHOTO, REGIONS, PRESENT = "photo", "regions", "present"  # inputs of `encode`; PRESENT is 1 for a region, 0 for padding


@dataclass(frozen=True)
class PreprocessingSection:
    """Preprocessing of a photo: squash it to `size` pixels a side, then compute (x - mean) / scale.

    Attributes:
        size: S, the side of the square in pixels.
        resize: Name of the resize's definition.
        mean: Mean of red, green and blue, on the scale 0 to 255.
        scale: Scale of red, green and blue.
        input: Kind of input of `encode`.
    """

    size: int
    resize: str = RESIZE
    mean: tuple[float, ...] = (127.0, 127.0, 127.0)
    scale: tuple[float, ...] = (128.0, 128.0, 128.0)
    input: Literal["photo"] = "photo"

    def described(self) -> dict[str, Any]:
        """Return this section for the metadata of a .tflite.

        Equal whole values of the three channels become one number.
        """
        mean, scale = (_shared(numbers) for numbers in (self.mean, self.scale))
        return {"size": self.size, "resize": self.resize, "mean": mean, "scale": scale}

    def encode_inputs(self) -> Signature:
        """Return the required inputs of `encode`."""
        return {PHOTO: ((1, self.size, self.size, 3), "float32")}

    def rules(self) -> list[tuple[str, bool, str]]:
        """Return the rules: (key, whether the rule holds, what is expected)."""
        scales = len(self.scale) == 3 and all(0.5 <= one <= 1024 for one in self.scale)
        means = len(self.mean) == 3 and all(0 <= one <= 255 for one in self.mean)
        return [
            ("size", 8 <= self.size <= 2048, "8 to 2048"),
            ("resize", self.resize == RESIZE, RESIZE),
            ("mean", means, "three numbers of 0 to 255"),
            ("scale", scales, "three numbers of 0.5 to 1024"),
        ]


@dataclass(frozen=True)
class RegionsSection:
    """Preprocessing of a model that takes the region features of a detector instead of a photo.

    Attributes:
        regions: R, the largest number of regions of a photo; fewer are padded with zeros.
        channels: F, channels of each region.
        input: Kind of input of `encode`.
    """

    regions: int
    channels: int
    input: Literal["regions"] = "regions"

    def described(self) -> dict[str, Any]:
        """Return this section for the metadata of a .tflite."""
        return dataclasses.asdict(self)

    def encode_inputs(self) -> Signature:
        """Return the required inputs of `encode`."""
        return {REGIONS: ((1, self.regions, self.channels), "float32"), PRESENT: ((1, self.regions), "float32")}

    def rules(self) -> list[tuple[str, bool, str]]:
        """Return the rules: (key, whether the rule holds, what is expected)."""
        return [
            ("regions", 1 <= self.regions <= MAX_REGIONS, f"1 to {MAX_REGIONS}"),
            ("channels", 1 <= self.channels <= 65_536, "1 to 65536"),
        ]


def _shared(numbers: tuple[float, ...]) -> int | list[float]:
    first = numbers[0]
    return int(first) if set(numbers) == {first} and first.is_integer() else list(numbers)
