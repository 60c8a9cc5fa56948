"""What `encode` takes: a photo of a size and how its pixels become numbers, or features of regions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from capprune_runtime.formats import Signature

RESIZE = "squash-triangle-q15"
MAX_REGIONS = 1024
PHOTO, REGIONS, PRESENT = "photo", "regions", "present"  # inputs of `encode`; PRESENT is 1 for a region, 0 for a filler


@dataclass(frozen=True)
class PreprocessingSection:
    """How a photo becomes the encoder's input: squashed to `size` pixels a side, then (x - mean) / scale.

    Attributes:
        size: S.
        resize: The definition of the resize.
        mean: Of each channel, red, green and blue, on the scale 0 to 255.
        scale: Of each channel.
        input: What `encode` takes.
    """

    size: int
    resize: str = RESIZE
    mean: tuple[float, ...] = (127.0, 127.0, 127.0)
    scale: tuple[float, ...] = (128.0, 128.0, 128.0)
    input: Literal["photo"] = "photo"

    def described(self) -> dict[str, Any]:
        """Return what the metadata of a .tflite says of it: one number where the channels share a whole one."""
        mean, scale = (_shared(numbers) for numbers in (self.mean, self.scale))
        return {"size": self.size, "resize": self.resize, "mean": mean, "scale": scale}

    def encode_inputs(self) -> Signature:
        """Return what `encode` must take."""
        return {PHOTO: ((1, self.size, self.size, 3), "float32")}

    def rules(self) -> list[tuple[str, bool, str]]:
        """Return what must hold: (key, whether it does, what is expected)."""
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
    """`encode` takes features of regions that a detector found, not a photo.

    Attributes:
        regions: R, the most regions of a photo; fewer are filled up with zeros.
        channels: F, of each region.
        input: What `encode` takes.
    """

    regions: int
    channels: int
    input: Literal["regions"] = "regions"

    def described(self) -> dict[str, Any]:
        """Return what the metadata of a .tflite says of it."""
        return dataclasses.asdict(self)

    def encode_inputs(self) -> Signature:
        """Return what `encode` must take."""
        return {REGIONS: ((1, self.regions, self.channels), "float32"), PRESENT: ((1, self.regions), "float32")}

    def rules(self) -> list[tuple[str, bool, str]]:
        """Return what must hold: (key, whether it does, what is expected)."""
        return [
            ("regions", 1 <= self.regions <= MAX_REGIONS, f"1 to {MAX_REGIONS}"),
            ("channels", 1 <= self.channels <= 65_536, "1 to 65536"),
        ]


def _shared(numbers: tuple[float, ...]) -> int | list[float]:
    first = numbers[0]
    return int(first) if set(numbers) == {first} and first.is_integer() else list(numbers)
