"""Limits of a bundle's running costs: its searches, its golden photos and the expansion of a packed bundle.

Beam, length and vocabulary have wide limits, and a bundle may hold many golden photos. So their product is limited by
the size of the bundle: `BASE` + `PER_BYTE` · size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capprune_runtime.bundle.golden import GoldenEntry
from capprune_runtime.bundle.manifest import GOLDEN_PHOTO, Manifest
from capprune_runtime.bundle.preprocessing import PreprocessingSection
from capprune_runtime.errors import BundleError

# Limits of multiply-adds for captioning the golden photos, and for one photo with the manifest's beam; about 5 s and 1
# s per MB.
BASE_WORK, WORK_PER_BYTE = 20_000_000_000, 8000
# Limits of the expanded size of a packed bundle, in bytes.
BASE_BYTES, BYTES_PER_BYTE = 64 << 20, 16
MAX_GOLDEN_BYTES = 64 << 20  # of all golden photos, decoded
_SCORE_WORK = 20  # cost of one score of one hypothesis: its logarithm and its ranking
_PIXEL_WORK = 60
_STEP_WORK = 1_000_000  # cost of a step on the host, besides its multiply-adds


def check_expansion(packed_bytes: int, total_bytes: int) -> None:
    """Check the expanded size of a packed bundle.

    Raises:
        BundleError: It is too large for the size of the file.
    """
    limit = BASE_BYTES + BYTES_PER_BYTE * packed_bytes
    if total_bytes > limit:
        raise BundleError(
            "the packed bundle would expand to too much for its size",
            expected=f"at most {limit} bytes",
            found=f"{total_bytes} bytes",
        )


def photo_size(manifest: Manifest) -> int | None:
    """Return S, the side of a golden photo in pixels; None for a model of region features."""
    return manifest.photo_size if isinstance(manifest.preprocessing, PreprocessingSection) else None


def check_costs(
    manifest: Manifest, golden: Sequence[GoldenEntry], encode: int, step: int, size_bytes: int, place: Path
) -> None:
    """Check the cost of captioning with a bundle.

    Args:
        manifest: The bundle's manifest.
        golden: Its golden photos.
        encode: Multiply-adds of `encode`.
        step: Multiply-adds of `step`.
        size_bytes: Stored size of the bundle.
        place: The bundle, for messages.

    Raises:
        BundleError: A search costs too much for the size of the bundle.
    """
    words, limit = manifest.decoding.max_tokens, BASE_WORK + WORK_PER_BYTE * size_bytes
    a_word = step + _STEP_WORK + _SCORE_WORK * (manifest.interface.vocabulary + manifest.interface.state_bytes // 4)
    pixels = (photo_size(manifest) or 0) ** 2
    decoded = len(golden) + sum(GOLDEN_PHOTO.fullmatch(name) is not None for name in manifest.files)
    photos = sum(encode + words * entry.beam * a_word for entry in golden) + _PIXEL_WORK * pixels * decoded
    one = encode + words * manifest.decoding.beam * a_word
    for what, cost in (("a search with the beam of the manifest", one), ("captioning the golden photos", photos)):
        if cost > limit:
            raise BundleError(
                f"{what} would cost too much for the size of the bundle",
                where=place,
                expected=f"at most {limit} products",
                found=f"{cost}: {words} tokens, {manifest.interface.vocabulary} scores, {len(golden)} golden photos",
            )
    state = manifest.interface.state_bytes * max([manifest.decoding.beam, *(entry.beam for entry in golden)])
    if state > MAX_GOLDEN_BYTES:
        raise BundleError(
            "the states of a search would need too much memory",
            where=place,
            expected=f"at most {MAX_GOLDEN_BYTES} bytes",
            found=f"{state} bytes",
        )
    if 3 * pixels * len(golden) > MAX_GOLDEN_BYTES:
        raise BundleError(
            "the golden photos are too large together",
            where=place,
            expected=f"at most {MAX_GOLDEN_BYTES} bytes when decoded",
            found=f"{3 * pixels * len(golden)} bytes",
        )
