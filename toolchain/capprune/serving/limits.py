"""What one server takes on: sizes of uploads, seconds of a request, and how much at a time."""

from __future__ import annotations

from dataclasses import dataclass

HEADER_SECONDS = 10.0  # for the head of a request to arrive
DRAIN_SECONDS = 2.0  # how long a refused upload is read and dropped, so that the client sees the answer
KEEP_ALIVE_SECONDS = 5


@dataclass(frozen=True)
class Limits:
    """What the server takes on.

    Attributes:
        upload_bytes: Of one photo file.
        pixels: Of one photo, before it is resized.
        seconds: Of one request: its upload, its wait and its caption.
        parallel: Captions generated at the same time, each in a thread with models of its own.
        waiting: Requests that may wait for a free thread; the next one is refused.
        connections: Open connections; the next one is refused.
        held_bytes: Of all uploads together that are in memory.
    """

    upload_bytes: int = 20 << 20
    pixels: int = 50_000_000
    seconds: float = 30.0
    parallel: int = 1
    waiting: int = 64
    connections: int = 256
    held_bytes: int = 256 << 20
