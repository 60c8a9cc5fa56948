"""Reads the photo of a request into memory, within the limits; nothing is written to disk."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from capprune.serving.limits import DRAIN_SECONDS, Limits
from capprune.serving.refused import Refused
from capprune_runtime.photo_file import photo_size

PHOTO_NAME = "the upload"  # in messages


class Uploads:
    """The uploads in memory, and the number of admitted requests.

    Args:
        limits: Limits of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held_bytes = 0
        self._admitted = 0

    def admit(self) -> Upload:
        """Admit one request, which must be released later.

        Raises:
            Refused: Too many are already admitted.
        """
        most = self._limits.parallel + self._limits.waiting
        if self._admitted >= most:
            raise Refused("busy", "the server is busy", expected=f"at most {most} requests at a time",
                          hint="send it again in 1 s")  # fmt: skip
        self._admitted += 1
        return Upload(self, self._limits)

    def leave(self, count: int) -> None:
        """Subtract a request with an upload of `count` bytes from both counts."""
        self._admitted -= 1
        self._held_bytes -= count

    def hold(self, count: int) -> None:
        """Add bytes in memory to the count.

        Raises:
            Refused: There would be too many.
        """
        if self._held_bytes + count > self._limits.held_bytes:
            raise Refused("busy", "the server holds too many uploads", hint="send it again in 1 s")
        self._held_bytes += count


class Upload:
    """One admitted request, and its photo file."""

    def __init__(self, uploads: Uploads, limits: Limits) -> None:
        self._uploads, self._limits = uploads, limits
        self._held, self._released = 0, False

    async def read(self, request: Request) -> bytes:
        """Read the whole body.

        Raises:
            Refused: It is too large, too slow or incomplete, or the uploads in memory are too large.
        """
        most = self._limits.upload_bytes
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > most:
            raise _too_large(most, f"{int(declared)} bytes")
        content = bytearray()
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for chunk in request.stream():
                    self._uploads.hold(len(chunk))
                    self._held += len(chunk)
                    content += chunk
                    if len(content) > most:
                        raise _too_large(most, "more")
        except TimeoutError:
            raise Refused("too_slow", "the upload took too long",
                          expected=f"at most {self._limits.seconds:g} s", found=f"{len(content)} bytes by then"
                          ) from None  # fmt: skip
        except ClientDisconnect:
            raise Refused("bad_request", "the upload ended early", found=f"{len(content)} bytes") from None
        return bytes(content)

    def release(self) -> None:
        """Make room for the next request; repeated calls have no effect."""
        if not self._released:
            self._uploads.leave(self._held)
        self._released = True


def check_photo(content: bytes, limits: Limits) -> None:
    """Check the kind and the pixels of a photo by its header, before it is decoded.

    Raises:
        Refused: It is empty or has too many pixels.
        PhotoError: It is not a photo.
    """
    if not content:
        raise Refused("bad_request", "the request holds no photo", expected="the bytes of a photo file as the body",
                      hint="curl --data-binary @photo.jpg ADDRESS/caption")  # fmt: skip
    size = photo_size(content, PHOTO_NAME)
    if size is None or size[0] * size[1] > limits.pixels:
        found = None if size is None else f"{size[0]}×{size[1]}"
        raise Refused("too_large", "the photo has too many pixels", expected=f"at most {limits.pixels:,}", found=found,
                      hint="make a smaller copy of the photo")  # fmt: skip


async def drain(request: Request, most_bytes: int) -> None:
    """Read and discard a rejected upload for a short time; a client that is still sending would miss the response."""
    dropped = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for chunk in request.stream():
                dropped += len(chunk)
                if dropped > most_bytes:
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: the stream was already read to its end
        return


def _too_large(most: int, found: str) -> Refused:
    return Refused("too_large", "the photo file is too large", expected=f"at most {most} bytes", found=found,
                   hint="make a smaller copy of the photo")  # fmt: skip
