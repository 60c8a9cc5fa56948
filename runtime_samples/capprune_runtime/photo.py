"""From a photo file to what the encoder takes: decode, turn upright, squash, normalise.

    file ── decode_photo ─▶ RGB (H, W, 3) ── resize ─▶ (S, S, 3) ── normalise ─▶ float32 (1, S, S, 3)

From decoded RGB on every step is integer arithmetic that any language can repeat to the bit
(docs/bundle_format.md gives the formulas). Colour profiles are ignored; of an animation, the first frame is taken.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from capprune_runtime.errors import PhotoError

MAX_PHOTO_BYTES = 256 << 20
DEFAULT_MEAN, DEFAULT_SCALE = (127.0,) * 3, (128.0,) * 3  # of red, green and blue, as EfficientNet-Lite takes them
MAX_PIXELS = 100_000_000
MAX_SIDE = 65_535  # JPEG's own limit; keeps every weight of the resize far inside 64 bits

# Photo formats only: Pillow also opens formats that start other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp"})  # of the files that count as photos in a folder

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

# What Pillow's decoders raise on hostile files; they document no common base.
_DECODER_ERRORS = (OSError, ValueError, SyntaxError, KeyError, IndexError, TypeError, EOFError, ArithmeticError)

_ONE_BITS = 15  # coefficients are fixed point, 2^15 is 1
_BLOCK_OUTPUTS = 8  # outputs computed by one product; more waste zeros, fewer waste calls
_BLOCK_ROWS = 64  # photo rows turned at once, so that the copy stays in the cache


def read_photo(source: Path | str | bytes, size: int) -> NDArray[np.uint8]:
    """Read a photo as the encoder's square, before normalisation.

    Args:
        source: The photo's path, or the bytes of the file.
        size: S, the side of the square in pixels.

    Returns:
        (S, S, 3) uint8 RGB.

    Raises:
        PhotoError: The file is missing, too large, truncated or no photo.
    """
    if isinstance(source, bytes):
        return resize(decode_photo(source, "the photo"), size)
    path = Path(source)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as error:
        raise PhotoError("a photo cannot be read", where=path, found=error.strerror) from None
    return resize(decode_photo(content, path), size)


def decode_photo(content: bytes, where: object) -> NDArray[np.uint8]:
    """Decode a photo file and turn it upright by its EXIF orientation.

    Transparent pixels are laid on white; 16-bit grey keeps its upper byte. A damaged EXIF block counts as none.

    Args:
        content: The bytes of a file in one of `FORMATS`.
        where: The file's name, for messages.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        PhotoError: The bytes are no photo, a truncated one, or one of more than `MAX_PIXELS` pixels.
    """
    if not content:
        raise PhotoError("a photo is empty", where=where, expected="a photo file", found="0 bytes")
    if len(content) > MAX_PHOTO_BYTES:
        raise PhotoError("a photo file is too large", where=where, expected=f"at most {MAX_PHOTO_BYTES} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow on odd metadata; its size warning is our error below
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_size(image.size, where)
                image.load()
                return _rgb(_upright(image), where)
        except Image.DecompressionBombError:
            raise _too_many_pixels(where, None) from None
        except UnidentifiedImageError:
            raise PhotoError(
                "a file is not a photo that can be read", where=where, expected="one of " + ", ".join(FORMATS)
            ) from None
        except _DECODER_ERRORS as error:
            raise PhotoError(
                "a photo cannot be decoded", where=where, found=str(error) or type(error).__name__
            ) from None


def resize(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Squash a whole photo to a square by an antialiased triangle filter in fixed point.

    Columns first, then rows; each pass rounds to uint8. A photo of S×S pixels is returned as it is.

    Args:
        rgb: (H, W, 3) uint8.
        size: S.

    Returns:
        (S, S, 3) uint8, the same to the bit on every machine and in every language.
    """
    height, width = rgb.shape[:2]
    columns = _squash_plan(width, size)
    narrow = np.empty((size, height, 3), np.uint8)
    for top in range(0, height, _BLOCK_ROWS):
        rows = rgb[top : top + _BLOCK_ROWS].transpose(1, 0, 2)  # (W, rows, 3)
        narrow[:, top : top + _BLOCK_ROWS] = _squash(rows.reshape(width, -1), columns, size).reshape(size, -1, 3)
    upright = narrow.transpose(1, 0, 2).reshape(height, size * 3)
    return _squash(upright, _squash_plan(height, size), size).reshape(size, size, 3)


def normalise(
    square: NDArray[np.uint8], mean: Sequence[float] = DEFAULT_MEAN, scale: Sequence[float] = DEFAULT_SCALE
) -> NDArray[np.float32]:
    """Return the encoder's input, (x - mean) / scale, each operation rounded to float32.

    Args:
        square: (S, S, 3) uint8.
        mean: Of red, green and blue, on the scale 0 to 255.
        scale: Of the same.

    Returns:
        (1, S, S, 3) float32, NHWC.
    """
    shifted = square.astype(np.float32) - np.asarray(mean, np.float32)
    return (shifted / np.asarray(scale, np.float32))[np.newaxis]


def _check_size(size: tuple[int, int], where: object) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PhotoError("a photo has no pixels", where=where, found=f"{width}×{height}")
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE:
        raise _too_many_pixels(where, f"{width}×{height}")


def _too_many_pixels(where: object, found: str | None) -> PhotoError:
    return PhotoError(
        "a photo has too many pixels",
        where=where,
        expected=f"at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} a side",
        found=found,
    )


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the whole EXIF block anew, and gives up the turn when another
    # tag of the block is damaged.
    try:
        turn = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (*_DECODER_ERRORS, RuntimeError):
        return image
    return image if turn is None else image.transpose(turn)


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


def _squash_plan(n_in: int, n_out: int) -> list[tuple[int, NDArray[np.float64]]]:
    """For each block of outputs, the first input that counts and the coefficients (outputs, inputs)."""
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
        plan.append((first, coefficients.astype(np.float64)))
    return plan


def _squash(samples: NDArray[np.uint8], plan: list[tuple[int, NDArray[np.float64]]], size: int) -> NDArray[np.uint8]:
    """(n_in, M) → (size, M) by one axis of the resize.

    The products are taken in float64, where sums of integers below 2^53 are exact in any order, because
    NumPy has fast matrix products for floating point only.
    """
    squashed = np.empty((size, samples.shape[1]), np.uint8)
    start = 0
    for first, coefficients in plan:
        outputs, inputs = coefficients.shape
        sums = coefficients @ samples[first : first + inputs].astype(np.float64)
        rounded = (sums.astype(np.int64) + (1 << (_ONE_BITS - 1))) >> _ONE_BITS
        squashed[start : start + outputs] = np.clip(rounded, 0, 255)
        start += outputs
    return squashed
