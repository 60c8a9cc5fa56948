"""Threads that generate captions, each with its own loaded models, and the queue in front of them."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from capprune.serving.limits import Limits
from capprune.serving.models import ServedModel
from capprune.serving.refused import Refused
from capprune.serving.uploads import PHOTO_NAME, check_photo
from capprune_runtime.caption.captioner import Caption, Captioner
from capprune_runtime.errors import PhotoWarning
from capprune_runtime.photo import read_photo

_DECODING = threading.Lock()  # decoding changes Python's warning filters, which all threads share

Watch = Callable[[str], None]  # receives the text of the caption so far


class Abandoned(Exception):
    """Nobody waits for this caption any more."""


@dataclass(frozen=True)
class Job:
    """The content of one request.

    Attributes:
        model: Name of the bundle.
        beam: K; None for the bundle's own.
        content: The photo file.
        abandoned: Set when nobody waits for the caption any more.
    """

    model: str
    beam: int | None
    content: bytes
    abandoned: threading.Event


@dataclass(frozen=True)
class Captioned:
    """A caption with additional facts.

    Attributes:
        model: The bundle.
        caption: Caption of the photo.
        decode_us: Time to decode and resize the photo, in µs.
        warning: Warning about the photo; None if there is none.
    """

    model: ServedModel
    caption: Caption
    decode_us: float
    warning: str | None


class Workers:
    """Threads that generate captions.

    Args:
        models: Loaded once for each thread.
        limits: Limits of the server.
        runtime: See `interpreter.open_model`.
        threads: Threads of each interpreter.

    Raises:
        MissingExtra: The runtime is not installed.
        BundleError: The interpreter does not accept a model.
    """

    def __init__(self, models: Sequence[ServedModel], limits: Limits, *, runtime: str, threads: int) -> None:
        self._models = {model.name: model for model in models}
        self._limits = limits
        self._pool = ThreadPoolExecutor(limits.parallel, thread_name_prefix="caption")
        self._free: asyncio.Queue[dict[str, Captioner]] = asyncio.Queue()
        for _ in range(limits.parallel):
            self._free.put_nowait({m.name: Captioner(m.bundle, runtime=runtime, threads=threads) for m in models})

    async def caption(self, job: Job, watch: Watch | None = None) -> Captioned:
        """Wait for a free thread and generate a caption there.

        Args:
            job: The request.
            watch: Called in the thread with the caption so far, after every word.

        Raises:
            Refused: The time limit of the request has passed, or the photo has too many pixels.
            PhotoError: The upload is not a photo, or cannot be decoded.
        """
        try:
            async with asyncio.timeout(self._limits.seconds):
                async with self._thread() as captioners:
                    work = asyncio.get_running_loop().run_in_executor(self._pool, self._work, job, captioners, watch)
                    try:
                        return await asyncio.shield(work)
                    finally:
                        if not work.done():  # the thread's models are free when it has stopped
                            job.abandoned.set()
                            await asyncio.wait([work])
                            work.exception()
        except TimeoutError:
            raise Refused("busy", "the caption took too long", expected=f"at most {self._limits.seconds:g} s") from None

    def close(self) -> None:
        """Wait for the threads to finish and stop them."""
        self._pool.shutdown()

    @asynccontextmanager
    async def _thread(self) -> AsyncIterator[dict[str, Captioner]]:
        captioners = await self._free.get()
        try:
            yield captioners
        finally:
            self._free.put_nowait(captioners)

    def _work(self, job: Job, captioners: dict[str, Captioner], watch: Watch | None) -> Captioned:
        captioner, model = captioners[job.model], self._models[job.model]

        def watched(tokens: tuple[int, ...]) -> None:
            if job.abandoned.is_set():
                raise Abandoned
            if watch is not None:
                watch(model.bundle.vocabulary.caption(tokens))

        started = time.perf_counter_ns()
        with _DECODING, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PhotoWarning)
            check_photo(job.content, self._limits)
            photo = read_photo(job.content, model.bundle.manifest.photo_size, PHOTO_NAME)
        decode_us = (time.perf_counter_ns() - started) / 1000
        caption = captioner.caption(photo, job.beam, watched)
        found = [str(one.message) for one in caught if issubclass(one.category, PhotoWarning)]
        return Captioned(model, caption, decode_us, found[0] if found else None)
