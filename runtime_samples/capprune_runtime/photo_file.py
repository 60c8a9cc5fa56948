"""Decode the bytes of a photo file to Pillow's image; check its kind and its size.

A photo needs at most 8 bytes a pixel (a WebP 16). Pillow's own image has 4 (1 for grey), and no second full image is made.
JPEGs of more than `MAX_PIXELS` are decoded at half their width and height.
"""

from __future__ import annotations

import importlib
import io
import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from capprune_runtime.errors import NotEnoughMemory, PhotoError, PhotoWarning
from capprune_runtime.input_file import open_input
from capprune_runtime.memory import ran_out

MAX_PHOTO_BYTES = 256 << 20
MAX_PIXELS = 100_000_000
MAX_JPEG_PIXELS = 256_000_000  # a JPEG may have more, because libjpeg decodes it at half size
MAX_WEBP_PIXELS = 50_000_000  # libwebp takes 16 bytes a pixel, also for one that is 40 bytes long
MAX_SIDE = 65_535  # JPEG's own limit; keeps every weight of the resize well inside 64 bits
MAX_TILE_PIXELS = 1 << 22  # of a TIFF, unless its photo is larger; libtiff takes memory for a whole tile
MAX_SCANS = 100  # of a JPEG; each takes time by the pixels, and 95 bytes are enough for one. Usual files have up to 14

# Photo formats only: Pillow also opens formats that run other programs (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
LATER_FORMATS = {"HEIF": "pillow_heif", "AVIF": "PIL.AvifImagePlugin"}  # read if these modules are installed

MISSING_SHARE = 1 / 16  # largest share of a JPEG's rows that may be missing at its end

# Exceptions that Pillow's decoders raise on malicious files; they have no documented common base.
DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, LookupError, TypeError, EOFError, ArithmeticError),
    *(RuntimeError, AttributeError, AssertionError, struct.error, zlib.error),
)

_CHUNK_BYTES = 1 << 20
_JPEG = b"\xff\xd8\xff"
_JPEG_END, _JPEG_SCAN = b"\xff\xd9", b"\xff\xda"
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # in the data of a scan, which these bytes end
_NOT_DECODED = 128  # libjpeg's grey for pixels that are missing from the file
_LARGE_PIXELS = 8_000_000  # above this size the message suggests a smaller copy
_PILLOW_BYTES = 4  # most bytes per pixel of Pillow's image

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_AS_JPEG = "convert it to JPEG first"
# (kind, the command that installs its decoder, the command that converts it)
_HEIC = ("a HEIC photo", "pip install pillow-heif", "convert it: heif-convert photo.heic photo.jpg")
_AVIF = ("an AVIF photo", "pip install 'Pillow>=11.3'", "convert it: avifdec photo.avif photo.png")

# (offset, bytes, kind of such a file, hint)
_SIGNATURES: tuple[tuple[int, bytes, str, str | None], ...] = (
    (0, b"\x00\x05\x16\x07", "an AppleDouble file, in which macOS keeps metadata", "name the photo without ._"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL image", "convert it: djxl photo.jxl photo.png"),
    (0, b"\xff\x0a", "a JPEG XL image", "convert it: djxl photo.jxl photo.png"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image", _AS_JPEG),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", _AS_JPEG),
    (0, b"8BPS", "a Photoshop document", "export it as JPEG or PNG"),
    (0, b"%PDF", "a PDF document", "convert a page: pdftoppm -png document.pdf page"),
    (0, b"FUJIFILMCCD-RAW", "a raw photo", "export it as JPEG from a raw converter"),
    (8, b"CR\x02\x00", "a raw photo (Canon CR2)", "export it as JPEG from a raw converter"),
    (4, b"ftypcrx ", "a raw photo (Canon CR3)", "export it as JPEG from a raw converter"),
    (4, b"ftyp", "a video", "take a frame: ffmpeg -i video.mp4 -frames:v 1 frame.png"),
    (0, b"\x1a\x45\xdf\xa3", "a video", "take a frame: ffmpeg -i video.mkv -frames:v 1 frame.png"),
    (0, b"PK\x03\x04", "a ZIP archive", "unpack it and name the folder"),
    (0, b"\x1f\x8b", "a gzip file", "unpack it first"),
    (0, b"<svg", "an SVG drawing", "draw it as PNG: rsvg-convert drawing.svg -o drawing.png"),
    (0, b"<?xml", "an XML or SVG file", None),
    (0, b"<!DOCTYPE", "a web page", "fetch the photo itself, not the page that shows it"),
    (0, b"<!doctype", "a web page", "fetch the photo itself, not the page that shows it"),
    (0, b"<html", "a web page", "fetch the photo itself, not the page that shows it"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the photo", "git lfs pull"),
)


def read_photo_file(path: Path) -> bytes:
    """Read a photo file, using no more memory than it has bytes.

    Raises:
        PhotoError: The file is missing, unreadable, larger than `MAX_PHOTO_BYTES`, or no plain file.
    """
    try:
        with open_input(path) as file:
            return read_stream(file, path, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise PhotoError("a photo cannot be read", where=path, found=error.strerror) from None


def read_stream(file: BinaryIO | io.RawIOBase, where: object, size_bytes: int = 0) -> bytes:
    """Read a stream to its end.

    Args:
        file: Opened for reading bytes.
        where: Its name, for messages.
        size_bytes: Its probable size.

    Raises:
        PhotoError: It holds more than `MAX_PHOTO_BYTES`.
    """
    try:
        chunks = [file.read(min(size_bytes, MAX_PHOTO_BYTES) + 1) or b""]
        total = len(chunks[0])
        while chunks[-1] and total <= MAX_PHOTO_BYTES:
            chunks.append(file.read(_CHUNK_BYTES) or b"")
            total += len(chunks[-1])
        if total > MAX_PHOTO_BYTES:
            raise PhotoError("a photo file is too large", where=where, expected=f"at most {MAX_PHOTO_BYTES} bytes")
        return chunks[0] if len(chunks) == 2 else b"".join(chunks)
    except MemoryError:
        raise not_enough_memory(where, None) from None


@contextmanager
def opened_photo(content: bytes, where: object) -> Iterator[Image.Image]:
    """Yield the decoded photo as stored in the file, not rotated.

    Errors raised in the block are converted to messages too. A JPEG of which only the end is missing is decoded, with a
    `PhotoWarning`.

    Args:
        content: The bytes of a file in one of `FORMATS` or `LATER_FORMATS`.
        where: The file's name, for messages.

    Raises:
        PhotoError: The bytes are not a photo, are truncated, or hold too many pixels.
        NotEnoughMemory: The photo does not fit into memory.
    """
    if not content:
        raise PhotoError("a photo is empty", where=where, expected="a photo file", found="0 bytes")
    if len(content) > MAX_PHOTO_BYTES:
        raise PhotoError("a photo file is too large", where=where, expected=f"at most {MAX_PHOTO_BYTES} bytes")
    size: tuple[int, int] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata; its size warning is our error below
        try:
            image = _open(content, where)
            size = image.size
            image, complete = _load(image, content, where)
            with image:
                yield image
        except MemoryError:
            raise not_enough_memory(where, size) from None
        except DECODER_ERRORS as error:
            if ran_out(error, 0 if size is None else size[0] * size[1] * _PILLOW_BYTES):
                raise not_enough_memory(where, size) from None
            raise PhotoError(
                "a photo cannot be decoded", where=where, found=str(error) or type(error).__name__
            ) from None
    if not complete:
        warnings.warn(f"a photo lacks its end, and is used as far as it goes: {where}", PhotoWarning, stacklevel=4)


def photo_size(content: bytes, where: object) -> tuple[int, int] | None:
    """Read the width and height of a photo from its header, without decoding it.

    Args:
        content: The bytes of a file in one of `FORMATS` or `LATER_FORMATS`.
        where: The file's name, for messages.

    Returns:
        Both in pixels, before rotation; None if there are far too many.

    Raises:
        PhotoError: The bytes are not a photo.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=_formats(content)) as image:
                return image.size
        except Image.DecompressionBombError:
            return None
        except UnidentifiedImageError:
            raise _not_a_photo(content, where) from None
        except DECODER_ERRORS as error:
            raise PhotoError("a photo cannot be decoded", where=where, found=str(error)) from None


def not_enough_memory(where: object, size: tuple[int, int] | None) -> NotEnoughMemory:
    """Return the error for a photo that does not fit into memory."""
    found = None if size is None else f"{size[0]}×{size[1]} pixels"
    large = size is not None and size[0] * size[1] >= _LARGE_PIXELS
    return NotEnoughMemory(
        "there is not enough memory for a photo",
        where=where,
        found=found,
        hint="make a smaller copy of the photo, or close other programs" if large else "close other programs",
    )


def _open(content: bytes, where: object) -> Image.Image:
    """Open a photo and check its header; a very large JPEG is set to half its size."""
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=_formats(content))
    except Image.DecompressionBombError:
        if not content.startswith(_JPEG):
            raise _too_many_pixels(where, None) from None
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(content))  # its size is checked below
    except UnidentifiedImageError:
        raise _not_a_photo(content, where) from None
    width, height = image.size
    if width < 1 or height < 1:
        raise PhotoError("a photo has no pixels", where=where, found=f"{width}×{height}")
    most = MAX_JPEG_PIXELS if _is_jpeg(image) else MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_PIXELS
    if width * height > most or max(image.size) > MAX_SIDE:
        raise _too_many_pixels(where, f"{width}×{height}")
    _require_native_decoder(image, where)
    _require_modest_tiles(image, where)
    if _is_jpeg(image) and (scans := _scans(content)) > MAX_SCANS:
        raise PhotoError("a JPEG has too many scans", where=where, expected=f"at most {MAX_SCANS}", found=scans,
                         hint="convert it to PNG first")  # fmt: skip
    if width * height > MAX_PIXELS:
        image.draft(image.mode, (width // 2, height // 2))
    return image


def _require_native_decoder(image: Image.Image, where: object) -> None:
    """Refuse a form that Pillow decodes in Python, which takes seconds for each megapixel."""
    decoders = [tile[0] for tile in getattr(image, "tile", ())]
    if (slow := next((name for name in decoders if name in Image.DECODERS), None)) is not None:
        raise PhotoError(
            "a photo is in a rare form that is slow to decode",
            where=where,
            expected="a BMP without run lengths, or a binary PPM of 8 bits a channel",
            found=f"{image.format}, which Pillow's decoder {slow} reads",
            hint="convert it to PNG first: magick photo photo.png",
        )


def _require_modest_tiles(image: Image.Image, where: object) -> None:
    """Refuse a TIFF whose tiles are much larger than its photo."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = [image.tag_v2.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
        if math.prod(tile) > max(MAX_TILE_PIXELS, 2 * image.width * image.height):
            raise PhotoError("a TIFF has tiles that are too large for its photo", where=where,
                             expected=f"at most {MAX_TILE_PIXELS:,} pixels or twice the photo",
                             found=f"{tile[0]}×{tile[1]}")  # fmt: skip


def _scans(content: bytes) -> int:
    """Return the number of scans of a JPEG's first image, at most one more than `MAX_SCANS`."""
    if content.count(_JPEG_SCAN) <= MAX_SCANS:  # also counts what looks like a scan in metadata
        return 0
    at, scans = 2, 0
    while scans <= MAX_SCANS and (found := _JPEG_MARKER.search(content, at)) is not None:
        marker = found.group()
        if marker == _JPEG_END:
            break
        scans += marker == _JPEG_SCAN
        at = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    return scans


def _load(image: Image.Image, content: bytes, where: object) -> tuple[Image.Image, bool]:
    """Return the image with its pixels, and whether the file held all of them."""
    try:
        image.load()
        return image, True
    except OSError as error:
        if not _is_jpeg(image) or "truncated" not in str(error):
            raise
        image.close()
        ended = _open(content + _JPEG_END, where)
        ended.load()
        if _lacks_rows(ended):
            raise error from None
        return ended, False


def _lacks_rows(image: Image.Image) -> bool:
    """Return whether more than `MISSING_SHARE` of a JPEG's rows are missing from its file."""
    last = max(0, image.height - int(image.height * MISSING_SHARE) - 1)
    row = image.crop((0, last, image.width, last + 1))
    return all(set(row.getchannel(band).tobytes()) == {_NOT_DECODED} for band in row.getbands())


def _is_jpeg(image: Image.Image) -> bool:
    return isinstance(image, JpegImagePlugin.JpegImageFile)  # includes MPO: several JPEGs in one file


def _formats(content: bytes) -> tuple[str, ...]:
    """Return Pillow's formats that these bytes may be in."""
    later = _heif_kind(content)
    if later is None:
        return FORMATS
    try:
        module = importlib.import_module(LATER_FORMATS[later])
    except ImportError:
        return FORMATS
    if later == "HEIF":
        module.register_heif_opener()
    return (later,)


def _heif_kind(content: bytes) -> str | None:
    """Return HEIF or AVIF, by the brands at the beginning of the file."""
    if content[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(content[:4], "big"), 256)
    brands = [content[at : at + 4] for at in (8, *range(16, end - 3, 4))]
    if not _AVIF_BRANDS.isdisjoint(brands):
        return "AVIF"
    return None if _HEIC_BRANDS.isdisjoint(brands) else "HEIF"


def _not_a_photo(content: bytes, where: object) -> PhotoError:
    kind = _heif_kind(content)
    if kind is not None:
        name, install, convert = _HEIC if kind == "HEIF" else _AVIF
        if _is_installed(LATER_FORMATS[kind]):
            found, hint = f"{name} in a form that the decoder does not know, or a damaged one", convert
        else:
            found, hint = f"{name}, for which no decoder is installed", f"{install}; or {convert}"
        return PhotoError("a photo cannot be decoded", where=where, found=found, hint=hint)
    found, advice = next(
        ((name, advice) for at, start, name, advice in _SIGNATURES if content[at : at + len(start)] == start),
        ("text" if _is_text(content[:512]) else f"a file that starts with {content[:8].hex(' ')}", None),
    )
    return PhotoError(
        "a file is not a photo that can be read",
        where=where,
        expected="one of " + ", ".join((*FORMATS, *LATER_FORMATS)),
        found=found,
        hint=advice,
    )


def _is_installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _is_text(start: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\n\r" for byte in start)


def _too_many_pixels(where: object, found: str | None) -> PhotoError:
    return PhotoError(
        "a photo has too many pixels",
        where=where,
        expected=f"at most {MAX_PIXELS // 1_000_000} megapixels ({MAX_JPEG_PIXELS // 1_000_000} in a JPEG, "
        f"{MAX_WEBP_PIXELS // 1_000_000} in a WebP) and {MAX_SIDE} a side",
        found=found,
        hint="make a smaller copy of the photo",
    )
