"""The HTTP application: the page, its files, the list of models, and `POST /caption`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from capprune.serving.answers import caption_document, event
from capprune.serving.assets import Asset
from capprune.serving.guard import Guard
from capprune.serving.limits import Limits
from capprune.serving.models import ServedModel
from capprune.serving.openapi import openapi
from capprune.serving.refused import PRIVATE, SCHEMA_VERSION, Refused, answer, as_refused, document
from capprune.serving.uploads import Upload, Uploads, drain
from capprune.serving.workers import Abandoned, Job, Workers
from capprune_runtime.bundle.manifest import MAX_BEAM
from capprune_runtime.errors import CapPruneError

EVENTS = "text/event-stream"
Events = asyncio.Queue[bytes | Refused | None]


def make_app(
    models: Sequence[ServedModel],
    workers: Workers,
    limits: Limits,
    assets: Sequence[Asset],
    hosts: frozenset[str] | None,
) -> Starlette:
    """Return the application.

    Args:
        models: The models; the first one is the default.
        workers: Threads with loaded models.
        limits: Limits of the server.
        assets: The files of the page.
        hosts: Allowed host names of requests; None for any.
    """
    service = Service(models, workers, limits)
    described = openapi([model.name for model in models], limits)
    routes = [Route(f"/{asset.name}".replace("/index.html", "/"), _file(asset), methods=["GET"]) for asset in assets]
    routes += [
        Route("/models.json", _document(service.offer()), methods=["GET"]),
        Route("/openapi.json", _document(described), methods=["GET"]),
        Route("/health", _document({"status": "ok"}), methods=["GET"]),
        Route("/caption", service.caption, methods=["POST"]),
    ]
    handlers: Any = {CapPruneError: _refusal, HTTPException: _http_error, Exception: _defect}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(Guard, hosts=hosts)])


class Service:
    """`POST /caption`: see `make_app`."""

    def __init__(self, models: Sequence[ServedModel], workers: Workers, limits: Limits) -> None:
        self._models = {model.name: model for model in models}
        self._workers, self._limits, self._uploads = workers, limits, Uploads(limits)
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self) -> dict[str, Any]:
        """Return the models and limits for the page."""
        limits = {"upload_bytes": self._limits.upload_bytes, "pixels": self._limits.pixels}
        models = [model.facts() for model in self._models.values()]
        return {"schema_version": SCHEMA_VERSION, "engine": "server", "models": models, "limits": limits}

    async def caption(self, request: Request) -> Response:
        """Respond with a caption as JSON, or with its words as events if the client accepts them."""
        upload: Upload | None = None
        try:
            upload = self._uploads.admit()
            model, beam, attention = self._asked(request)
            job = Job(model, beam, await upload.read(request), threading.Event())
            if EVENTS in request.headers.get("accept", ""):
                work, upload = self._stream(job, attention, upload), None  # released when its caption is finished
                return await work
            captioned = await self._workers.caption(job)
            return JSONResponse(caption_document(captioned, attention=attention), headers=PRIVATE)
        except CapPruneError as error:
            refused = as_refused(error)
            if refused.code != "too_slow":
                await drain(request, 4 * self._limits.upload_bytes)
            return answer(refused, close=True)
        finally:
            if upload is not None:
                upload.release()

    def _asked(self, request: Request) -> tuple[str, int | None, bool]:
        """Return model, beam and attention from the query."""
        query = dict(request.query_params)
        if unknown := query.keys() - {"model", "beam", "attention"}:
            raise _bad(sorted(unknown)[0][:40], "model, beam or attention")
        name = query.get("model", next(iter(self._models)))
        if name not in self._models:
            raise Refused("unknown_model", "there is no such model", expected=", ".join(self._models), found=name[:80])
        beam = query.get("beam")
        if beam is not None and not (beam.isascii() and beam.isdecimal() and 1 <= int(beam[:9]) <= MAX_BEAM):
            raise _bad("beam", f"1 to {MAX_BEAM}", beam)
        attention = query.get("attention", "0")
        if attention not in ("0", "1"):
            raise _bad("attention", "0 or 1", attention)
        return name, None if beam is None else int(beam), attention == "1"

    async def _stream(self, job: Job, attention: bool, upload: Upload) -> Response:
        """Return the stream of events. If the first one is a refusal, it is raised, so that its own status is sent."""
        queue: Events = asyncio.Queue()
        task = asyncio.create_task(self._work(job, attention, upload, queue))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        first = await queue.get()
        if first is None:
            raise Refused("internal", "the server failed", hint="see its log")
        if isinstance(first, Refused):
            raise first

        async def stream() -> AsyncIterator[bytes]:
            one: bytes | Refused | None = first
            try:
                while one is not None:
                    yield event("error", document(one)) if isinstance(one, Refused) else one
                    one = await queue.get()
            finally:
                job.abandoned.set()  # the client may have disconnected

        return StreamingResponse(stream(), media_type=EVENTS, headers=PRIVATE)

    async def _work(self, job: Job, attention: bool, upload: Upload, queue: Events) -> None:
        """Caption a photo and put every event into the queue, then None."""
        loop = asyncio.get_running_loop()

        def watch(text: str) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, event("words", {"text": text}))

        try:
            captioned = await self._workers.caption(job, watch)
            queue.put_nowait(event("caption", caption_document(captioned, attention=attention)))
        except CapPruneError as error:
            queue.put_nowait(as_refused(error))
        except Abandoned:
            pass
        finally:
            upload.release()
            queue.put_nowait(None)


def _bad(what: str, expected: str, found: str | None = None) -> Refused:
    shown = None if found is None else found[:40]
    return Refused(
        "bad_parameter", "a parameter of the query is not allowed", where=what, expected=expected, found=shown
    )


def _file(asset: Asset) -> Any:
    async def serve(request: Request) -> Response:
        return Response(asset.content, media_type=asset.media_type, headers={"Cache-Control": "no-cache"})

    return serve


def _document(content: dict[str, Any]) -> Any:
    body = json.dumps(content).encode()

    async def serve(request: Request) -> Response:
        return Response(body, media_type="application/json", headers=PRIVATE)

    return serve


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, CapPruneError)
    return answer(as_refused(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        return answer(Refused("wrong_method", "the address does not support this method", expected=allowed))
    return answer(
        Refused("not_found", "there is nothing at this address", hint="GET /openapi.json lists all addresses")
    )


async def _defect(request: Request, error: Exception) -> Response:
    return answer(Refused("internal", "the server failed", hint="see its log"))
