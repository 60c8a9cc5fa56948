"""Views of a photo for training: the whole photo, parts of it, and their mirror images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SMALLEST: Final = 0.7  # share of the width, and of the height, that a part keeps at least


@dataclass(frozen=True)
class View:
    """A way to look at photos.

    Attributes:
        part: 0 for the whole photo; each other number is another part of every photo.
        mirrored: Whether left and right are exchanged.
    """

    part: int = 0
    mirrored: bool = False

    @property
    def whole(self) -> bool:
        """Whether photos are seen as they are."""
        return self == View()

    @property
    def label(self) -> str:
        """What distinguishes it, for messages and cache keys; empty for the whole photo."""
        return ", ".join([f"part {self.part}"] * bool(self.part) + ["mirrored"] * self.mirrored)

    def cut(self, photo: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        """Return the seen part of a photo, not mirrored yet.

        The part of a photo depends only on its name and on `part`: it is equal in all epochs, so that its features can be
        cached, and on all machines. Width and height are drawn independently, so the squashed part is also stretched.

        Args:
            photo: (H, W, 3) uint8.
            name: The photo's name.
        """
        if not self.part:
            return photo
        draws = np.frombuffer(hashlib.sha256(f"{name}\n{self.part}".encode()).digest()[:16], "<u4") / 2.0**32
        top, height = _span(photo.shape[0], draws[0], draws[1])
        left, width = _span(photo.shape[1], draws[2], draws[3])
        return photo[top : top + height, left : left + width]

    def turned(self, squares: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return squashed photos (B, S, S, 3) as this view shows them."""
        return np.ascontiguousarray(squares[:, :, ::-1]) if self.mirrored else squares


WHOLE: Final = View()


def _span(length: int, share: float, place: float) -> tuple[int, int]:
    """Return the start and the length of a part of a side, from two numbers of [0, 1)."""
    kept = max(1, round(length * (SMALLEST + (1 - SMALLEST) * float(share))))
    return int(float(place) * (length - kept + 1)), kept
