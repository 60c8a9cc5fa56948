"""Convert a photo file to the encoder's input: decode, rotate upright, squash, normalise.

    file ── decode_photo ─▶ RGB (H, W, 3) ── resize ─▶ (S, S, 3) ── normalise ─▶ float32 (1, S, S, 3)

After decoding, every step is integer arithmetic that any language can reproduce bit for bit (docs/bundle_format.md
gives the formulas). Colour profiles are ignored. Of an animation, the first frame is used.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capprune_runtime.errors import PhotoError
from capprune_runtime.memory import is_short
from capprune_runtime.photo_file import DECODER_ERRORS, opened_photo, read_photo_file

DEFAULT_MEAN, DEFAULT_SCALE = (127.0,) * 3, (128.0,) * 3  # of red, green and blue, as in EfficientNet-Lite
# Extensions of the files that count as photos in a folder.
ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}
    | {".heic", ".heif", ".hif", ".avif"}
)

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Plan: TypeAlias = Sequence[tuple[int, NDArray[np.float32]]]  # see `_squash_plan`

_FROM_THE_END = (3, 4, 7, 8)  # orientations where the top of the upright photo is at the bottom or right of the file

_ONE_BITS = 15  # coefficients are fixed point: 2^15 is 1
_ONE, _HALF = np.float32(1 << _ONE_BITS), np.float32(1 << (_ONE_BITS - 1))
_BLOCK_OUTPUTS = 8  # outputs per matrix product; a larger block multiplies more zeros, a smaller one makes more calls
_PRODUCT_BYTES = 40 << 20  # memory that the first matrix product of a process allocates permanently
_BAND_PIXELS = 1 << 18  # rotated and resized at once, in whole rows, so that the copy fits into the cache


def read_photo(source: Path | str | bytes, size: int, where: object = None) -> NDArray[np.uint8]:
    """Read a photo as the encoder's square, before normalisation.

    The photo is resized band by band, so that the only full copy is Pillow's own.

    Args:
        source: The photo's path, or the bytes of the file.
        size: S, the side of the square in pixels.
        where: The photo's name, for messages.  [default: the path]

    Returns:
        (S, S, 3) uint8 RGB.

    Raises:
        PhotoError: The file is missing, too large, truncated or not a photo.
        NotEnoughMemory: The photo does not fit into memory.
    """
    if isinstance(source, bytes):
        content, where = source, where or "the photo"
    else:
        content, where = read_photo_file(Path(source)), where or source
    with opened_photo(content, where) as image:
        orientation = _orientation(image)
        return _resize_bands(_bands(image, orientation, where), _upright_size(image, orientation), size)


def decode_photo(content: bytes, where: object) -> NDArray[np.uint8]:
    """Decode a photo file and rotate it upright by its EXIF orientation.

    Transparent pixels are composited on white. 16-bit grey keeps its upper byte. A damaged EXIF block is ignored.
    A JPEG of more than `photo_file.MAX_PIXELS` is decoded at half its width and height.

    Args:
        content: The bytes of a file in one of `photo_file.FORMATS`.
        where: The file's name, for messages.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        PhotoError: The bytes are not a photo, are truncated, or hold too many pixels.
        NotEnoughMemory: The photo does not fit into memory.
    """
    with opened_photo(content, where) as image:
        orientation = _orientation(image)
        width, height = _upright_size(image, orientation)
        rgb = np.empty((height, width, 3), np.uint8)
        top = 0
        for band in _bands(image, orientation, where):
            rgb[top : top + len(band)] = band
            top += len(band)
        return rgb


def resize(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Squash a whole photo to a square with an antialiased triangle filter in fixed point.

    Columns first, then rows; each pass rounds to uint8. A photo of S×S pixels is returned unchanged.

    Args:
        rgb: (H, W, 3) uint8.
        size: S.

    Returns:
        (S, S, 3) uint8, bit-identical on every machine and in every language.
    """
    height, width = rgb.shape[:2]
    rows = _band_rows(width)
    bands = (rgb[top : top + rows] for top in range(0, height, rows))
    return _resize_bands(bands, (width, height), size)


def normalise(
    square: NDArray[np.uint8], mean: Sequence[float] = DEFAULT_MEAN, scale: Sequence[float] = DEFAULT_SCALE
) -> NDArray[np.float32]:
    """Return the encoder's input, (x - mean) / scale, each operation rounded to float32.

    Args:
        square: (S, S, 3) uint8.
        mean: Mean of red, green and blue, on the scale 0 to 255.
        scale: Scale of red, green and blue.

    Returns:
        (1, S, S, 3) float32, NHWC.
    """
    height, width = square.shape[:2]
    pixels = square.reshape(height, -1).astype(np.float32)
    # whole rows, because broadcasting over three values at a time is slow
    pixels -= np.tile(np.asarray(mean, np.float32), width)
    pixels /= np.tile(np.asarray(scale, np.float32), width)
    return pixels.reshape(1, height, width, 3)


def _resize_bands(bands: Iterable[NDArray[np.uint8]], photo_size: tuple[int, int], size: int) -> NDArray[np.uint8]:
    """Resize a photo of (width, height) pixels that arrives in bands of rows, from the top."""
    _room_for_products()
    width, height = photo_size
    columns = _pixel_plan(width, size)
    narrow = np.empty((height, size * 3), np.uint8)
    top = 0
    for band in bands:
        rows = band.reshape(len(band), -1).astype(np.float32)  # red, green and blue of a pixel are adjacent
        _squash(rows.T, columns, narrow[top : top + len(band)].T)
        top += len(band)
    square = np.empty((size, size * 3), np.uint8)
    _squash(narrow, _squash_plan(height, size), square)
    return square.reshape(size, size, 3)


def _band_rows(width: int) -> int:
    return max(1, _BAND_PIXELS // width)


@functools.cache
def _room_for_products() -> None:
    """Raise MemoryError where OpenBLAS would hang at the first product, waiting for memory for its permanent buffer."""
    if is_short(_PRODUCT_BYTES):
        raise MemoryError


def _orientation(image: Image.Image) -> int:
    # Not ImageOps.exif_transpose: it rewrites the whole EXIF block, and skips the rotation when another tag of the
    # block is damaged.
    try:
        found = image.getexif().get(_EXIF_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return found if found in _UPRIGHT else 1


def _upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if orientation >= 5 else (width, height)


def _bands(image: Image.Image, orientation: int, where: object) -> Iterator[NDArray[np.uint8]]:
    """Yield the upright photo as RGB in bands of rows, from the top; one band at a time is rotated and converted."""
    across = orientation >= 5  # the upright photo's rows are columns of the file
    total, width = (image.width, image.height) if across else (image.height, image.width)
    rows = _band_rows(width)
    for top in range(0, total, rows):
        first, last = top, min(top + rows, total)
        if orientation in _FROM_THE_END:
            first, last = total - last, total - first
        box = (first, 0, last, image.height) if across else (0, first, image.width, last)
        band = image.crop(box)
        yield _rgb(band.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else band, where)


def _rgb(image: Image.Image, where: object) -> NDArray[np.uint8]:
    mode = image.mode
    if mode.startswith("I"):  # 16-bit grey, which Pillow also opens as 32-bit
        grey = (np.clip(np.asarray(image).astype(np.int64), 0, 65_535) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if mode == "F":
        raise PhotoError("a photo has floating-point pixels", where=where, expected="8 or 16 bits a channel")
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        rgba = np.asarray(image.convert("RGBA")).astype(np.uint32)
        alpha = rgba[:, :, 3:]
        on_white: NDArray[np.uint32] = (rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
        return on_white.astype(np.uint8)
    return np.array(image.convert("RGB"))


@functools.lru_cache(maxsize=4)
def _squash_plan(n_in: int, n_out: int) -> Plan:
    """Return, for each block of outputs, the first input used and the coefficients (outputs, inputs)."""
    reach = 2 * max(n_in, n_out)  # half the base of the triangle, in units of 1 / (2·n_in·n_out)
    plan = []
    for start in range(0, n_out, _BLOCK_OUTPUTS):
        outputs = np.arange(start, min(start + _BLOCK_OUTPUTS, n_out), dtype=np.int64)
        centres = (2 * outputs + 1) * n_in
        first = max(0, int((centres[0] - reach - n_out) // (2 * n_out)))
        last = min(n_in - 1, int((centres[-1] + reach) // (2 * n_out)))
        inputs = np.arange(first, last + 1, dtype=np.int64)
        distance = np.abs((2 * inputs + 1) * n_out - centres[:, np.newaxis])
        weights = np.maximum(0, reach - distance)  # (outputs, inputs)
        total = weights.sum(axis=1, keepdims=True)
        coefficients = ((weights << (_ONE_BITS + 1)) + total) // (2 * total)
        residual = (1 << _ONE_BITS) - coefficients.sum(axis=1)
        coefficients[np.arange(len(outputs)), coefficients.argmax(axis=1)] += residual
        plan.append((first, coefficients.astype(np.float32)))
    return plan


@functools.lru_cache(maxsize=2)
def _pixel_plan(n_in: int, n_out: int) -> Plan:
    """Return a `_squash_plan` for interleaved red, green and blue samples, which avoids transposing the photo."""
    each = np.eye(3, dtype=np.float32)
    return [(3 * first, np.kron(coefficients, each)) for first, coefficients in _squash_plan(n_in, n_out)]


def _squash(samples: NDArray[Any], plan: Plan, squashed: NDArray[np.uint8]) -> None:
    """Fill `squashed`, (outputs, M), from (inputs, M) along one axis of the resize.

    NumPy has fast matrix products only for floating point. In float32, sums of integers below 2^24 are exact in any
    order, and no sum here exceeds 2^15 · 255.
    """
    start = 0
    for first, coefficients in plan:
        outputs, inputs = coefficients.shape
        sums = coefficients @ samples[first : first + inputs].astype(np.float32, copy=False)
        sums += _HALF
        sums *= 1 / _ONE
        squashed[start : start + outputs] = sums  # drops the fraction
        start += outputs
