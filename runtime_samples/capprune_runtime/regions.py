"""Precomputed region features: the input of models whose `preprocessing.input` is "regions".

A `.npy` file holds float32 (N, F): N regions of F channels, N from 1 to 100. It is read without `numpy.load`, which
allocates what the header asks for before it checks the size of the file.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.errors import DataError
from capprune_runtime.input_file import open_input

ENDING: Final = ".npy"
MAX_REGIONS: Final = 100  # of a photo, as in bottom-up attention
MAX_CHANNELS: Final = 1 << 14

_MAGIC: Final = b"\x93NUMPY"
_MAX_HEADER: Final = 1024
MAX_REGION_BYTES: Final = _MAX_HEADER + 16 + 4 * MAX_REGIONS * MAX_CHANNELS
_HEADER: Final = re.compile(
    rb"\{'descr': '([^']{1,20})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,12}(?:, ?\d{1,12}){0,7},?)?)\), ?\} *\n?"
)


def read_regions(path: Path) -> NDArray[np.float32]:
    """Read the regions of one photo.

    Returns:
        (N, F), N at most `MAX_REGIONS`.

    Raises:
        DataError: The file is missing, broken or holds something else.
    """
    return decode_regions(read_region_file(path), path)


def read_region_file(path: Path) -> bytes:
    """Read the bytes of a region file, without decoding them.

    Raises:
        DataError: The file cannot be read, or is too large for one.
    """
    try:
        with io.BufferedReader(open_input(path)) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(MAX_REGION_BYTES + 1)
        if len(content) > MAX_REGION_BYTES:
            raise _broken(path, "regions are too large", f"at most {MAX_REGION_BYTES:,} bytes", f"{size:,} bytes")
        return content
    except OSError as error:
        raise DataError("regions cannot be read", where=path, found=error.strerror) from error


def decode_regions(data: bytes, where: object) -> NDArray[np.float32]:
    """Decode the bytes of a `.npy` file; see `read_regions`.

    Args:
        data: The whole file.
        where: Its name, for messages.
    """
    kind, fortran, shape, start = _header(data, where)
    if kind != "<f4":
        hint = 'numpy.save(path, regions.astype("float32"))'
        raise _broken(where, "regions are not float32 numbers", "dtype <f4", f"dtype {ascii(kind)[1:-1]}", hint)
    if len(shape) != 2 or not (1 <= shape[0] <= MAX_REGIONS and 1 <= shape[1] <= MAX_CHANNELS):
        expected = f"(N, F) with N from 1 to {MAX_REGIONS}, F from 1 to {MAX_CHANNELS:,}"
        raise _broken(where, "regions have an invalid shape", expected, str(shape))
    if len(data) - start != 4 * math.prod(shape):
        expected = f"{4 * math.prod(shape):,} bytes behind the header for {shape}"
        raise _broken(where, "a file of regions is cut off or too long", expected, f"{len(data) - start:,}")
    regions = np.frombuffer(data, "<f4", offset=start).reshape(shape, order="F" if fortran else "C")
    if not np.isfinite(regions).all():
        row = int((~np.isfinite(regions)).any(1).argmax())
        raise _broken(where, "regions hold numbers that are not finite", "finite numbers", f"one in region {row}")
    return np.ascontiguousarray(regions)


def _header(data: bytes, where: object) -> tuple[str, bool, tuple[int, ...], int]:
    """Return (dtype, whether in Fortran order, shape, offset of the first number) of a .npy file."""
    if data[:6] != _MAGIC or len(data) < 12 or data[6] not in (1, 2, 3):
        raise _broken(
            where, "this is not a .npy file", "a file that numpy.save wrote", f"first bytes {data[:8].hex(' ')}"
        )
    wide = data[6] > 1
    (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
    start = (12 if wide else 10) + length
    found = (
        _HEADER.fullmatch(data[12 if wide else 10 : start]) if length <= _MAX_HEADER and start <= len(data) else None
    )
    if found is None:
        raise _broken(where, "the header of a .npy file is broken", "dtype, order and shape of plain numbers", None)
    shape = tuple(int(size) for size in found.group(3).replace(b",", b" ").split())
    return found.group(1).decode("latin-1"), found.group(2) == b"True", shape, start


def _broken(where: object, what: str, expected: str, found: str | None, hint: str | None = None) -> DataError:
    return DataError(what, where=where, expected=expected, found=found, hint=hint)
