"""Photos: the resize equals its definition to the bit, and no file can do worse than be refused."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from capprune_runtime.errors import PhotoError, PhotoWarning
from capprune_runtime.photo import decode_photo, normalise, read_photo, resize
from capprune_runtime.photo_file import MAX_PIXELS


def reference_axis(samples: NDArray[np.uint8], n_out: int) -> NDArray[np.uint8]:
    """The definition of one pass over the first axis, in Python's own whole numbers."""
    n_in = len(samples)
    passed = np.empty((n_out, *samples.shape[1:]), np.uint8)
    for o in range(n_out):
        weights = [max(0, 2 * max(n_in, n_out) - abs((2 * i + 1) * n_out - (2 * o + 1) * n_in)) for i in range(n_in)]
        total = sum(weights)
        coefficients = [(2 * weight * 2**15 + total) // (2 * total) for weight in weights]
        coefficients[coefficients.index(max(coefficients))] += 2**15 - sum(coefficients)
        for place in np.ndindex(samples.shape[1:]):
            column = samples[(slice(None), *place)].tolist()
            acc = sum(c * x for c, x in zip(coefficients, column, strict=True))
            passed[(o, *place)] = min(255, max(0, (acc + 2**14) >> 15))
    return passed


def reference_resize(rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    narrow = reference_axis(rgb.transpose(1, 0, 2), size).transpose(1, 0, 2)
    return reference_axis(narrow, size)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 24), seed=st.integers(0, 2**32 - 1))
def test_resize_equals_the_definition(height: int, width: int, size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rgb = generator.choice(np.array([0, 1, 127, 128, 254, 255], np.uint8), (height, width, 3))
    assert np.array_equal(resize(rgb, size), reference_resize(rgb, size))


@pytest.mark.parametrize(("height", "width", "size"), [(1, 700, 9), (700, 1, 9), (130, 300, 224), (2, 3, 64)])
def test_resize_equals_the_definition_when_the_sides_differ_much(height: int, width: int, size: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 1), dtype=np.uint8).repeat(3, axis=2)
    expected = reference_resize(rgb[:, :, :1], size).repeat(3, axis=2)
    assert np.array_equal(resize(rgb, size), expected)


def test_resize_to_its_own_size_is_the_identity() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (31, 31, 3), dtype=np.uint8)
    assert np.array_equal(resize(rgb, 31), rgb)


@given(value=st.integers(0, 255), height=st.integers(1, 500), width=st.integers(1, 500), size=st.integers(1, 64))
@settings(max_examples=30, deadline=None)
def test_resize_keeps_an_even_colour(value: int, height: int, width: int, size: int) -> None:
    assert (resize(np.full((height, width, 3), value, np.uint8), size) == value).all()


def test_normalise_is_exact_for_every_value() -> None:
    square = np.arange(256, dtype=np.uint8).reshape(16, 16)[:, :, np.newaxis].repeat(3, axis=2)
    photo = normalise(square)
    assert photo.shape == (1, 16, 16, 3) and photo.dtype == np.float32
    assert np.array_equal(photo[0] * 128 + 127, square.astype(np.float32))


def drawn_photo(width: int = 4000, height: int = 3000) -> Image.Image:
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 10, height // 10, width // 3, height // 2), fill=(220, 30, 40))
    draw.rectangle((width // 2, height // 2, width - 2, height - 3), fill=(10, 60, 200))
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def test_a_12_megapixel_photo_turned_by_exif_equals_the_upright_one_and_takes_well_under_a_second() -> None:
    upright = drawn_photo(3000, 4000)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif, subsampling=0)
    pixels = decode_photo(lying, "lying.jpg")
    started = time.process_time()
    square = resize(pixels, 224)
    assert time.process_time() - started < 1
    assert pixels.shape == (4000, 3000, 3)
    expected = read_photo(encoded(upright, "JPEG", quality=95, subsampling=0), 224)
    assert np.abs(square.astype(int) - expected).max() <= 2  # JPEG rounds its blocks along other axes
    assert np.array_equal(read_photo(lying, 224), square)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int) -> None:
    upright = drawn_photo(40, 30)
    back = {
        1: (), 2: ("FLIP_LEFT_RIGHT",), 3: ("ROTATE_180",), 4: ("FLIP_TOP_BOTTOM",), 5: ("TRANSPOSE",),
        6: ("ROTATE_90",), 7: ("TRANSVERSE",), 8: ("ROTATE_270",),
    }[orientation]  # fmt: skip
    stored = upright
    for step in back:
        stored = stored.transpose(Image.Transpose[step])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode_photo(encoded(stored, "PNG", exif=exif), "p"), np.asarray(upright))


def exif_with(orientation: int, damage: bytes) -> bytes:
    entries = struct.pack("<HHII", 0x0112, 3, 1, orientation) + damage
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1 + len(damage) // 12) + entries + b"\0\0\0\0"


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0" + struct.pack("<IH", 8, 65535),
        exif_with(0, b""),
        exif_with(99, b""),
    ],
)
def test_a_damaged_exif_block_counts_as_none(exif: bytes) -> None:
    upright = drawn_photo(40, 30)
    assert decode_photo(encoded(upright, "JPEG", exif=exif), "p").shape == (30, 40, 3)


def test_a_damaged_tag_beside_the_orientation_does_not_keep_the_photo_lying() -> None:
    beside = struct.pack("<HHII", 0x8769, 4, 1, 0xFFFFFFF0) + struct.pack("<HHII", 0x9C9B, 5, 77, 0xFFFFFF00)
    lying = encoded(drawn_photo(40, 30), "JPEG", exif=exif_with(6, beside))
    assert decode_photo(lying, "p").shape == (40, 30, 3)


def test_modes_become_rgb_in_the_defined_way() -> None:
    grey = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
    as_rgb = grey[:, :, np.newaxis].repeat(3, axis=2)
    assert np.array_equal(decode_photo(encoded(Image.fromarray(grey), "PNG"), "L"), as_rgb)
    wide = Image.fromarray(grey.astype(np.uint16) * 256 + 255)
    assert np.array_equal(decode_photo(encoded(wide, "PNG"), "I;16"), as_rgb)
    palette = Image.fromarray(as_rgb).quantize(256)
    assert np.array_equal(decode_photo(encoded(palette, "PNG"), "P"), np.asarray(palette.convert("RGB")))
    cmyk = Image.fromarray(as_rgb).convert("CMYK")
    assert np.array_equal(decode_photo(encoded(cmyk, "TIFF"), "CMYK"), np.asarray(cmyk.convert("RGB")))
    bits = Image.fromarray(grey > 100)
    assert np.array_equal(decode_photo(encoded(bits, "PNG"), "1")[:, :, 0], (grey > 100) * np.uint8(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_are_laid_on_white(mode: str) -> None:
    grey = np.full((16, 16), 40, np.uint8)
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([grey, grey, grey, alpha], axis=2))
    kind = "PNG" if mode != "PA" else "TIFF"
    expected = [(40 * a + 255 * (255 - a) + 127) // 255 for a in range(256)]
    content = encoded(image if mode == "PA" else image.convert(mode), kind)
    assert decode_photo(content, mode)[:, :, 0].ravel().tolist() == expected


def test_a_transparent_colour_of_a_palette_becomes_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.putpixel((0, 0), 0)
    pixels = decode_photo(encoded(image, "PNG", transparency=0), "p")
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[1, 1].tolist() == [9, 8, 7]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_every_photo_format_is_read_and_a_truncated_one_refused(kind: str) -> None:
    content = encoded(drawn_photo(120, 90), kind)
    assert decode_photo(content, "whole").shape == (90, 120, 3)
    with pytest.raises(PhotoError, match=r"short\.bin"):
        decode_photo(content[: len(content) // 2], "short.bin")


@pytest.mark.parametrize("content", [b"", b"x", b"not a photo at all" * 100, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a"])
def test_a_file_that_is_no_photo_is_refused(content: bytes) -> None:
    with pytest.raises(PhotoError, match="no-photo"):
        decode_photo(content, "no-photo")


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height"),
    [(10_001, 10_000), (MAX_PIXELS + 1, 1), (70_000, 10), (2**31 - 1, 2**31 - 1), (0, 10), (20_000, 20_000)],
)
def test_a_photo_of_impossible_size_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    with pytest.raises(PhotoError):
        decode_photo(png_header(width, height), "bomb.png")


def test_a_photo_within_the_limit_gives_no_warning_of_its_size() -> None:
    with pytest.raises(PhotoError, match="cannot be decoded"):  # only because this file holds no pixels
        decode_photo(png_header(9_999, 9_999), "large.png")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_photo_is_read_or_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]))
    content = bytearray(encoded(drawn_photo(24, 20), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PhotoError), warnings.catch_warnings():
        warnings.simplefilter("ignore", PhotoWarning)  # of a JPEG that lacks only its end
        assert decode_photo(bytes(content), "p").shape[2] == 3


def test_a_photo_that_cannot_be_opened_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"absent\.jpg"):
        read_photo(tmp_path / "absent.jpg", 32)
    with pytest.raises(PhotoError, match="cannot be read"):
        read_photo(tmp_path, 32)


def test_a_photo_is_read_from_its_path_as_from_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(encoded(drawn_photo(50, 40), "PNG"))
    photo = read_photo(tmp_path / "p.png", 16)
    assert photo.shape == (16, 16, 3)
    assert np.array_equal(photo, read_photo((tmp_path / "p.png").read_bytes(), 16))
