"""The server: uvicorn, with limits on slow and on too many connections, errors as JSON, and a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from capprune.serving.limits import HEADER_SECONDS, KEEP_ALIVE_SECONDS, Limits
from capprune.serving.refused import Refused, document
from capprune_runtime.errors import UsageError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
BACKLOG = 512
_REASONS = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 with limits on the number of connections and on the time for the head of a request."""

    most_connections = 256
    header_seconds = HEADER_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or reject it."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._refuse(Refused("busy", "the server has too many connections", hint="try again in 1 s"))
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Receive bytes of a request."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of a closed connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Respond to bytes that are not valid HTTP."""
        self._refuse(Refused("bad_request", "this is not an HTTP request that can be read"))

    def _watch_head(self) -> None:
        """Run a timer while the head of a request is expected."""
        awaited = self.cycle is None or self.cycle.response_complete
        if not awaited:
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.header_seconds, self._head_too_slow)

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            limit = f"at most {self.header_seconds:g} s"
            self._refuse(Refused("too_slow", "the head of the request took too long", expected=limit))

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, refused: Refused) -> None:
        body = json.dumps(document(refused)).encode()
        head = (
            f"HTTP/1.1 {refused.status} {_REASONS[refused.status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """Finishes the requests in progress at the first Ctrl-C or SIGTERM, and stops immediately at the second one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle both signals while the server runs."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Request the server to stop."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of the server.

    Args:
        host: A name or an address of this machine.
        port: 0 for any free one.

    Raises:
        UsageError: The address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)  # a client that has the address may connect immediately
        return listening
    except OSError as error:
        raise UsageError(
            "the server cannot listen at this address",
            where=f"{host}:{port}",
            found=error.strerror,
            hint="choose another one with --host and --port",
        ) from None


def run(make: Callable[[], ASGIApp], listening: socket.socket, limits: Limits) -> None:
    """Serve until a signal arrives.

    Args:
        make: Makes the application, inside the event loop.
        listening: See `listen`.
        limits: Limits of the server.
    """
    guards = {"most_connections": limits.connections, "header_seconds": min(HEADER_SECONDS, limits.seconds)}
    protocol = type("Protocol", (GuardedProtocol,), guards)

    async def serve() -> None:
        config = uvicorn.Config(
            make(),
            http=protocol,
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=round(limits.seconds) + 1,
        )
        await Server(config).serve([listening])

    asyncio.run(serve())
