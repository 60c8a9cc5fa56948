"""Rejects cross-site requests, and sets headers that isolate the page from other sites."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from capprune.serving.assets import POLICY
from capprune.serving.refused import Refused, answer

_HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Middleware around the application.

    Args:
        app: The application.
        hosts: Allowed host names of requests; None for any. A name that another site has pointed at this machine (DNS
            rebinding) is not among them.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refused = self._refusal(Headers(scope=scope))
        app = self._app if refused is None else answer(refused, close=True)
        await app(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers) -> Refused | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self._hosts is not None and name.lower() not in self._hosts:
            return Refused("wrong_host", "the request is addressed to another host", found=host[:80])
        if origin is not None and origin.partition("://")[2] != host:
            return Refused("cross_site", "the request comes from another site", expected=host[:80], found=origin[:80])
        return None
