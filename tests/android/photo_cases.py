"""Odd and hostile photos for the JUnit tests, with what Python's reader makes of each."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from capprune_runtime.errors import PhotoError, PhotoWarning
from capprune_runtime.photo import decode_photo
from capprune_runtime.photo_file import MAX_SCANS

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # that Python and phones read
SIZE = (64, 48)


def write_photos(folder: Path) -> None:
    folder.mkdir()
    index = []
    for number, (name, content) in enumerate(photos()):
        (folder / str(number)).write_bytes(content)
        index.append({"file": str(number), "name": name, "error": error_of(content)})
    (folder / "index.json").write_text(json.dumps(index))


def error_of(content: bytes) -> str | None:
    """The name of Python's error; None where the photo is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhotoWarning)  # of a few rows that are missing
        try:
            decode_photo(content, "case")
        except PhotoError as error:
            return type(error).__name__
    return None


def photos() -> Iterator[tuple[str, bytes]]:
    for kind in FORMATS:
        content = encoded(kind)
        yield f"a sound {kind}", content
        yield f"a {kind} with bytes behind", content + bytes(20)
        for share in (0.02, 0.3, 0.5, 0.7, 0.9):
            yield f"{share:.0%} of a {kind}", content[: int(share * len(content))]
    progressive = encoded("JPEG", progressive=True)
    yield "a progressive JPEG", progressive
    yield "half a progressive JPEG", progressive[: len(progressive) // 2]
    yield "a JPEG without its end", encoded("JPEG")[:-2]
    yield "a JPEG with EXIF data", with_exif()
    last = progressive[progressive.rfind(b"\xff\xda") : -2]
    for scans in (MAX_SCANS, MAX_SCANS + 1, 5000):
        yield (
            f"a JPEG of {scans} scans",
            progressive[:-2] + last * (scans - progressive.count(b"\xff\xda")) + b"\xff\xd9",
        )
    yield "scans behind a JPEG", encoded("JPEG") + b"\xff\xda\0\2" * 300
    yield "a JPEG in data of an application", _with_segment(encoded("JPEG"), b"\xff\xda\0\2" * 300)
    yield "a JPEG whose last segment says that it is longer", encoded("JPEG")[:2] + b"\xff\xe1\xff\xff" + bytes(20)
    yield from large_pngs()
    yield from no_photos()


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


def with_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


def _with_segment(jpeg: bytes, body: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xe5" + (2 + len(body)).to_bytes(2, "big") + body + jpeg[2:]


def large_pngs() -> Iterator[tuple[str, bytes]]:
    """PNGs of a few bytes whose headers ask for much."""
    for width, height in ((0, 10), (10, 0), (65_536, 1), (1, 65_536), (20_000, 20_000), (2**31 - 1, 2**31 - 1)):
        yield f"a PNG of {width} x {height}", png(width, height, zlib.compress(bytes(1000)))


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def no_photos() -> Iterator[tuple[str, bytes]]:
    """What decoders of phones or of desktops may take for a photo, and nobody should."""
    yield "nothing", b""
    for start in (
        b"\xff",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF",
        b"RIFF\x04\0\0\0WEBP",
        b"GIF89a",
        b"BM",
    ):
        yield f"only {start!r}", start
    yield "an icon", b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x18\0" + bytes(900)
    yield "a WBMP", b"\0\0\x08\x08" + bytes(8)
    yield "a raw photo", b"FUJIFILMCCD-RAW" + bytes(200)
    yield "a DNG", b"II*\0\x08\0\0\0\0\0" + bytes(200)
    yield "a video", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(200)
    yield "a HEIC without a photo", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"[:6]
    yield "text", b"a photo" * 30
    yield "a PDF", b"%PDF-1.7" + bytes(100)
    yield "a web page", b"<html>" + bytes(100)
