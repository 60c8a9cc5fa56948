"""A headless Chromium that opens one page and tells what it asked for, what it complained of, and what it shows.

Debian's `chromium` over its debugging pipe: JSON messages that end in a zero byte, on descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows"),  # or its processes are niced
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a request to outside is seen, and goes nowhere
    "--remote-debugging-pipe",
)
LONGEST_S = 90.0  # of a busy machine
LONGEST_ADDRESS = 200  # characters that are kept; a photo inside the page has very many
QUIET_S = 1.0  # what a page asks for, it asks for within so long


@dataclass(frozen=True)
class Visit:
    """What came of opening a page.

    Attributes:
        requests: Every address that was asked for.
        complaints: Errors and warnings of the console, and exceptions.
        facts: What an expression of JavaScript gave on the page.
    """

    requests: tuple[str, ...]
    complaints: tuple[str, ...]
    facts: Any


def visit(chromium: str, page: Path, folder: Path, expression: str, width: int = 1200) -> Visit:
    """Open a file in a browser with an empty profile in `folder`, and evaluate an expression on it."""
    with opened(chromium, page.resolve().as_uri(), folder, width) as tab:
        tab.listen(QUIET_S)
        facts = tab.evaluate(expression)
    return Visit(tab.requests, tab.complaints, facts)


class Tab:
    """An open page."""

    def __init__(self, pipe: _Pipe, session: str) -> None:
        self._pipe, self._session = pipe, session

    @property
    def requests(self) -> tuple[str, ...]:
        """Every address that was asked for."""
        return tuple(_requests(self._pipe.events))

    @property
    def complaints(self) -> tuple[str, ...]:
        """Errors and warnings of the console, and exceptions."""
        return tuple(_complaints(self._pipe.events))

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the page's debugger."""
        return self._pipe.ask(method, session=self._session, **params)

    def listen(self, seconds: float) -> None:
        """Collect what happens for so long."""
        self._pipe.listen(seconds)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression gives; a promise is awaited."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to a file chooser of the page."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **extra)

    def prefer(self, feature: str, value: str, medium: str = "") -> None:
        """Set what the user prefers, such as color-scheme, and the medium, such as print."""
        self.ask("Emulation.setEmulatedMedia", media=medium, features=[{"name": f"prefers-{feature}", "value": value}])

    def screenshot(self) -> bytes:
        """Return a PNG of the whole page."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])


@contextmanager
def opened(chromium: str, address: str, folder: Path, width: int = 1200) -> Iterator[Tab]:
    """A browser with an empty profile in `folder` that has opened an address."""
    flags = (*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900")
    with _pipe([chromium, *flags, "about:blank"]) as pipe:
        target = pipe.ask("Target.createTarget", url="about:blank")["targetId"]
        session = pipe.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            pipe.ask(f"{domain}.enable", session=session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        pipe.ask("Emulation.setDeviceMetricsOverride", session=session, **size)  # windows have a least width
        # workers report their requests and complaints as pages do
        pipe.ask("Target.setAutoAttach", session=session, autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        pipe.ask("Page.navigate", session=session, url=address)
        pipe.wait_for("Page.loadEventFired")
        try:
            yield Tab(pipe, session)
        finally:
            pipe.ask("Browser.close")


def _requests(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        if event["method"] == "Network.requestWillBeSent":
            yield event["params"]["request"]["url"][:LONGEST_ADDRESS]


def _complaints(events: list[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        what = event.get("params", {})
        if event["method"] == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            yield what["entry"]["text"]
        elif event["method"] == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            yield json.dumps(what["args"])
        elif event["method"] == "Runtime.exceptionThrown":
            yield json.dumps(what["exceptionDetails"])


class _Pipe:
    """Questions to a browser, and the events that come between the answers."""

    def __init__(self, read: int, write: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._read, self._write, self._rest, self._number = read, write, b"", 0

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number  # more are given out while this one is waited for
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        message |= {} if session is None else {"sessionId": session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        for found in self._messages(LONGEST_S):
            if found.get("id") == number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
        raise AssertionError(f"the browser does not answer to {method}")

    def wait_for(self, method: str) -> None:
        if any(event["method"] == method for event in self.events):
            return
        for found in self._messages(LONGEST_S):
            if found.get("method") == method:
                return
        raise AssertionError(f"the browser does not tell of {method}")

    def listen(self, seconds: float) -> None:
        for _ in self._messages(seconds):
            pass

    def _follow(self, event: dict[str, Any]) -> None:
        """Listen to a worker before it starts."""
        if event["method"] == "Target.attachedToTarget" and event["params"]["waitingForDebugger"]:
            methods = ("Network.enable", "Log.enable", "Runtime.enable", "Runtime.runIfWaitingForDebugger")
            for method in methods:
                self._number += 1
                message = {"id": self._number, "method": method, "sessionId": event["params"]["sessionId"]}
                os.write(self._write, json.dumps(message).encode() + b"\0")

    def _messages(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What the browser says until so many seconds have passed; events are kept."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._read], [], [], left)[0]:
                return
            content = os.read(self._read, 1 << 16)
            if not content:
                return
            *whole, self._rest = (self._rest + content).split(b"\0")
            for text in whole:
                found: dict[str, Any] = json.loads(text)
                if "method" in found:
                    self.events.append(found)
                    self._follow(found)
                yield found


@contextmanager
def _pipe(command: list[str]) -> Iterator[_Pipe]:
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    plugged = ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{from_write}', "bash", *command]
    process = subprocess.Popen(
        plugged, pass_fds=(to_read, from_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_read), os.close(from_write)
    try:
        yield _Pipe(from_read, to_write)
        process.wait(LONGEST_S)
    finally:
        process.kill()
        process.wait()
        os.close(from_read), os.close(to_write)
