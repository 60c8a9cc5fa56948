"""A server in a process of its own, as a user starts it, and plain sockets to talk to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from capprune.ready import READY

LONGEST_S = 60.0
PHOTO = Path(__file__).parents[2] / "docs" / "gallery" / "chelsea.jpg"


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str]:
        """The status and the code of an error document, whose parts agree."""
        document = self.document
        assert document["status"] == self.status and document["what"] and document["schema_version"] == 1
        return self.status, document["error"]


@dataclass(frozen=True)
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    port: int
    document: dict[str, Any]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_S)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            return answered(connection)
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LONGEST_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(LONGEST_S)

    @property
    def most_memory_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def answered(connection: http.client.HTTPConnection) -> Answer:
    """Read one answer of a connection."""
    response = connection.getresponse()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def last_answer(connection: socket.socket) -> Answer:
    """Read the answer that ends a connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@contextmanager
def served(*arguments: object, folder: Path | None = None) -> Iterator[Served]:
    """A server with these arguments; its errors go to this process's stderr."""
    command = [sys.executable, "-m", "capprune", "serve", *map(str, arguments), "--port", "0", "--json"]
    places = {} if folder is None else {"TMPDIR": str(folder), "HOME": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env={**os.environ, **places})
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, "the server ended"
            text += line
        document = json.loads(text)
        yield Served(process, int(document["address"].split(":")[2].rstrip("/")), document)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The package's own bundle and a copy of it, with the usual limits but for time: the machine may be busy."""
    copy = tmp_path_factory.mktemp("copy") / READY.name
    copy.write_bytes(READY.read_bytes())
    with served(READY, copy, "--max-seconds", 600) as running:
        yield running


@pytest.fixture(scope="session")
def strict_server() -> Iterator[Served]:
    """The same with low limits: 0.1 MB, 0.2 megapixels, two seconds, two waiting requests."""
    limits = ("--max-upload", 0.1, "--max-pixels", 0.2, "--max-seconds", 2, "--waiting", 2)
    with served(READY, *limits) as running:
        yield running


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A photo that may be shipped."""
    return PHOTO.read_bytes()
