"""`capprune serve` over real sockets: captions, events, errors, limits, and its end."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from capprune.ready import READY
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.photo import read_photo
from serving.conftest import LONGEST_S, Answer, Served, answered, last_answer, served


def png(width: int, height: int) -> bytes:
    """A tiny file that promises an image of these sizes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(width * height, 1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def events(answer: Answer) -> list[tuple[str, Any]]:
    blocks = answer.body.decode().split("\n\n")[:-1]
    return [(block.split("\n")[0].removeprefix("event: "), json.loads(block.split("data: ")[1])) for block in blocks]


@pytest.mark.parametrize("beam", [1, 3])
def test_a_caption_is_that_of_the_runtime(server: Served, photo: bytes, beam: int) -> None:
    bundle = verify_bundle(READY)
    expected = Captioner(bundle).caption(read_photo(photo, bundle.manifest.photo_size), beam=beam)
    answer = server.ask("POST", f"/caption?beam={beam}&attention=1", photo)
    found = answer.document
    assert answer.status == 200 and answer.headers["cache-control"] == "no-store"
    assert (found["caption"], tuple(found["tokens"])) == (expected.text, expected.tokens)
    assert tuple(found["words"]) == expected.shown and len(found["step_us"]) == len(expected.step_us)
    assert expected.attention is not None and found["attention"]["side"] ** 2 == expected.attention.shape[1]
    assert len(found["attention"]["weights"]) == len(expected.tokens)
    assert "attention" not in server.ask("POST", "/caption", photo).document


def test_words_come_as_events_before_the_caption(server: Served, photo: bytes) -> None:
    answer = server.ask("POST", "/caption?beam=1", photo, Accept="text/event-stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    *words, (name, caption) = events(answer)
    assert name == "caption" and {kind for kind, _ in words} == {"words"}
    texts = [data["text"] for _, data in words]
    assert texts[-1] == caption["caption"] and len(texts) >= len(caption["tokens"])
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))


def test_the_page_and_its_files_come_from_the_server_alone(server: Served) -> None:
    page = server.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html") and b"page.js" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name, kind in (("page.js", "text/javascript"), ("page.css", "text/css"), ("models.json", "application/json")):
        assert server.ask("GET", f"/{name}").headers["content-type"].startswith(kind)
    assert server.ask("GET", "/models.json").document["models"] == server.document["models"]
    assert server.ask("GET", "/health").document == {"status": "ok"}


def test_answers_are_what_openapi_says(server: Served, photo: bytes) -> None:
    described = server.ask("GET", "/openapi.json").document
    schemas = described["components"]["schemas"]
    operation = described["paths"]["/caption"]["post"]
    for answer, name in (
        (server.ask("POST", "/caption", photo), "Caption"),
        (server.ask("POST", "/caption?attention=1", photo), "Caption"),
        (server.ask("POST", "/caption", b"text"), "Error"),
        (server.ask("POST", "/caption?model=other", photo), "Error"),
    ):
        assert str(answer.status) in operation["responses"]
        assert schemas[name]["required"] and set(schemas[name]["required"]) <= answer.document.keys()
        assert answer.document.keys() <= schemas[name]["properties"].keys()
    assert {one["name"] for one in operation["parameters"]} == {"model", "beam", "attention"}


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        ("/caption", b"", (400, "bad_request")),
        ("/caption", b"this is no photo", (415, "not_a_photo")),
        ("/caption", b"<svg xmlns='http://www.w3.org/2000/svg'/>", (415, "not_a_photo")),
        ("/caption", png(8, 8)[:40], (415, "not_a_photo")),
        ("/caption", png(10_000, 10_001), (413, "too_large")),
        ("/caption", png(30_000, 30_000), (413, "too_large")),
        ("/caption?model=nothing", b"x", (404, "unknown_model")),
        ("/caption?beam=0", b"x", (400, "bad_parameter")),
        ("/caption?beam=many", b"x", (400, "bad_parameter")),
        ("/caption?beam=9999999999999", b"x", (400, "bad_parameter")),
        ("/caption?bean=1", b"x", (400, "bad_parameter")),
        ("/caption?attention=yes", b"x", (400, "bad_parameter")),
        ("/nowhere", b"x", (404, "not_found")),
        ("/", b"x", (405, "wrong_method")),
    ],
)
def test_what_cannot_be_is_refused_in_json(server: Served, path: str, body: bytes, refusal: tuple[int, str]) -> None:
    assert server.ask("POST", path, body).refusal == refusal
    if refusal[0] in (413, 415):
        assert server.ask("POST", path, body, Accept="text/event-stream").refusal == refusal


def test_other_sites_are_refused(server: Served, photo: bytes) -> None:
    assert server.ask("POST", "/caption", photo, Host="evil.example").refusal == (421, "wrong_host")
    assert server.ask("POST", "/caption", photo, Origin="https://evil.example").refusal == (403, "cross_site")
    assert server.ask("POST", "/caption", photo, Origin=server.address.rstrip("/")).status == 200


def test_bytes_that_are_no_http_get_an_answer(server: Served) -> None:
    with server.connect() as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert last_answer(connection).refusal == (400, "bad_request")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_upload_is_refused_while_it_is_sent(strict_server: Served, chunked: bool) -> None:
    body = (bytes(50_000) for _ in range(5)) if chunked else bytes(250_000)
    answer = strict_server.ask("POST", "/caption", body)
    assert answer.refusal == (413, "too_large") and "100000" in answer.document["expected"]


def test_many_pixels_are_refused(strict_server: Served, photo: bytes) -> None:
    assert strict_server.ask("POST", "/caption", png(500, 500)).refusal == (413, "too_large")
    assert strict_server.ask("POST", "/caption", photo).status == 200


@pytest.mark.parametrize(
    "begin", [b"POST /caption HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n\r\nabc", b"POST /capt", b""]
)
def test_slow_requests_are_ended(strict_server: Served, begin: bytes) -> None:
    with strict_server.connect() as connection:
        connection.sendall(begin)
        assert last_answer(connection).refusal == (408, "too_slow")


def test_slow_heads_are_ended_on_a_connection_that_is_used_again(strict_server: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", strict_server.port, timeout=LONGEST_S)
    connection.request("GET", "/health")
    assert answered(connection).status == 200
    connection.sock.sendall(b"GET /hea")
    assert last_answer(connection.sock).refusal == (408, "too_slow")
    connection.close()


def test_a_flood_of_requests_is_refused_and_the_rest_is_answered(strict_server: Served, photo: bytes) -> None:
    answers: list[Answer] = []
    flood = [
        threading.Thread(target=lambda: answers.append(strict_server.ask("POST", "/caption?beam=100", photo)))
        for _ in range(24)
    ]
    for one in flood:
        one.start()
    for one in flood:
        one.join()
    statuses = [answer.status for answer in answers]
    assert len(statuses) == 24 and set(statuses) == {200, 503}
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.refusal == (503, "busy") and refused.headers["retry-after"] == "1"
    assert strict_server.ask("POST", "/caption", photo).status == 200


def test_a_flood_of_connections_is_refused(strict_server: Served, photo: bytes) -> None:
    open_connections: list[socket.socket] = []
    try:
        for _ in range(300):
            open_connections.append(strict_server.connect())
        assert last_answer(open_connections[-1]).refusal == (503, "busy")
    finally:
        for connection in open_connections:
            connection.close()
    assert _eventually(lambda: strict_server.ask("POST", "/caption", photo).status == 200)


def test_a_client_that_leaves_makes_room(strict_server: Served, photo: bytes) -> None:
    head = f"POST /caption?beam=100 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(photo)}\r\n"
    for accept in ("", "Accept: text/event-stream\r\n"):
        for _ in range(6):
            with strict_server.connect() as connection:
                connection.sendall(f"{head}{accept}\r\n".encode() + photo)
        assert _eventually(lambda: strict_server.ask("POST", "/caption", photo).status == 200)


def _eventually(holds: Any) -> bool:
    for _ in range(100):
        if holds():
            return True
        time.sleep(0.1)
    return False


def test_it_keeps_no_file_and_answers_what_it_has_begun_when_it_is_stopped(photo: bytes, tmp_path: Path) -> None:
    with served(READY, folder=tmp_path) as server:
        assert server.ask("POST", "/caption", photo).status == 200
        with server.connect() as connection:
            head = f"POST /caption HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(photo)}\r\n\r\n"
            connection.sendall(head.encode() + photo[:100])
            assert server.ask("GET", "/health").status == 200  # the upload has begun by now
            codes: list[int] = []
            ended = threading.Thread(target=lambda: codes.append(server.stop()))
            ended.start()
            assert _eventually(lambda: not _listens(server))
            connection.sendall(photo[100:])
            assert last_answer(connection).status == 200
        ended.join()
        assert codes == [0]
    assert list(tmp_path.iterdir()) == []


def _listens(server: Served) -> bool:
    try:
        server.connect().close()
    except OSError:
        return False
    return True


def test_several_bundles_have_names_of_their_own(server: Served, photo: bytes) -> None:
    names = [model["name"] for model in server.document["models"]]
    assert names == [READY.stem, f"{READY.stem}-2"]
    answers = [server.ask("POST", f"/caption?model={name}", photo).document for name in names]
    assert answers[0]["tokens"] == answers[1]["tokens"] and answers[1]["model"] == names[1]
