"""Decompression of zlib streams of a known size."""

from __future__ import annotations

import zlib

from capprune_runtime.errors import BundleError


def inflate(data: memoryview, size: int, what: str) -> bytes:
    """Expand one zlib stream that must use all of `data` and return exactly `size` bytes.

    Raises:
        BundleError: The stream is broken, or its size differs.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise BundleError(f"{what}: this is no zlib stream", found=error) from None
    if len(content) != size:
        found = f"{len(content)} bytes" if len(content) < size else "more"
        raise BundleError(f"{what}: the stream has another length", expected=f"{size} bytes", found=found)
    if not stream.eof or stream.unused_data:
        raise BundleError(f"{what}: the stream ends early, or bytes follow it")
    return content
