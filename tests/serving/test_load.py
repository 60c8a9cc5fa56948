"""Many requests over many connections: none is lost, and memory stays bounded."""

from __future__ import annotations

import http.client
import threading
import time

import pytest

from serving.conftest import LONGEST_S, Served, answered

CONNECTIONS = 32
MOST_GROWTH_KIB = 150_000  # from the first caption on, with 32 uploads under way


@pytest.mark.parametrize(
    "requests", [96, pytest.param(1000, marks=pytest.mark.slow)], ids=["96 requests", "1,000 requests"]
)
def test_no_request_is_lost_and_memory_is_bounded(server: Served, photo: bytes, requests: int) -> None:
    assert server.ask("POST", "/caption", photo).status == 200
    before = server.most_memory_kib
    started = time.monotonic()
    captions = _captions(server, photo, requests)
    seconds = time.monotonic() - started
    growth = server.most_memory_kib - before
    print(f"{requests} requests over {CONNECTIONS} connections: {requests / seconds:.1f}/s, {growth:,} KiB more memory")
    assert len(captions) == requests and len(set(captions)) == 1
    assert growth < MOST_GROWTH_KIB


def _captions(server: Served, photo: bytes, requests: int) -> list[str]:
    """What all requests gave; each connection sends its share one after another."""
    captions: list[str] = []
    left = iter(range(requests))
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10 * LONGEST_S)
        while True:
            with lock:
                if next(left, None) is None:
                    break
            connection.request("POST", "/caption?beam=1", photo)
            answer = answered(connection)
            captions.append(answer.document.get("caption", f"status {answer.status}"))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return captions
