"""Limits of one server: sizes of uploads, duration of a request, and concurrency."""

from __future__ import annotations

from dataclasses import dataclass

HEADER_SECONDS = 10.0  # for the head of a request to arrive
DRAIN_SECONDS = 2.0  # time to read and discard a rejected upload, so that the client reads the response
KEEP_ALIVE_SECONDS = 5


@dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
        upload_bytes: Size of one photo file.
        pixels: Pixels of one photo, before it is resized.
        seconds: Duration of one request: its upload, its wait and its caption.
        parallel: Captions generated at the same time, each in a thread with its own models.
        waiting: Requests that may wait for a free thread; more are rejected.
        connections: Open connections; more are rejected.
        held_bytes: Size of all uploads in memory together.
    """

    upload_bytes: int = 20 << 20
    pixels: int = 50_000_000
    seconds: float = 30.0
    parallel: int = 1
    waiting: int = 64
    connections: int = 256
    held_bytes: int = 256 << 20
