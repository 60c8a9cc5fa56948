"""Serves the page that captions photos, or writes it as files that run in the browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, needs, optional_path
from capprune.training.progress import SILENT, Progress

if TYPE_CHECKING:
    from capprune.serving.limits import Limits
    from capprune.serving.models import ServedModel


@dataclass(frozen=True)
class Serving:
    """A running server.

    Attributes:
        address: Address that it listens on.
        models: Facts of each model.
    """

    address: str
    models: tuple[Mapping[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune serve --json` prints."""
        return {"address": self.address, "models": [dict(model) for model in self.models]}


@dataclass(frozen=True)
class StaticPage:
    """A page written as files.

    Attributes:
        folder: Folder of the files.
        total_bytes: Size of all files.
        download_bytes: Bytes that the first visit loads, by model.
    """

    folder: Path
    total_bytes: int
    download_bytes: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune serve --static --json` prints."""
        return {"folder": str(self.folder), "bytes": self.total_bytes, "download_bytes": dict(self.download_bytes)}


@needs("serve")
def serve(
    bundles: Sequence[Place] = (),
    *,
    static: Place | None = None,
    engine: Place | None = None,
    onnx_engine: Place | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_upload: float = 20.0,
    max_pixels: float = 50.0,
    max_seconds: float = 30.0,
    parallel: int = 1,
    waiting: int = 64,
    runtime: str = "auto",
    threads: int = 1,
    progress: Progress = SILENT,
    started: Callable[[Serving], None] = lambda serving: None,
) -> StaticPage | None:
    """Serve a page that captions photos until Ctrl-C, or write it as files that run in the browser.

    Args:
        bundles: The models to choose from; the package's own by default.
        static: Write the page into this folder and start no server.
        engine: With `static`, the unpacked npm package of LiteRT.js; downloaded once by npm by default.
        onnx_engine: The same for ONNX bundles: the package of onnxruntime-web.
        host: Address to listen on.
        port: Port; 0 for any free one.
        max_upload: Maximum size of a photo file in MB.
        max_pixels: Maximum size of a photo in megapixels.
        max_seconds: Maximum duration of a request in seconds.
        parallel: Number of captions computed in parallel.
        waiting: Maximum number of waiting requests; further ones are refused.
        runtime: An interpreter, or `auto`.
        threads: Threads of each interpreter.
        progress: Receives progress messages.
        started: Called when the server listens.

    Returns:
        The written page; None after a server has ended.

    Raises:
        UsageError: A bundle does not exist, or the address cannot be used.
        BundleError: A bundle does not pass the verifier.
    """
    from capprune.ready import ready_bundle
    from capprune.serving.limits import Limits
    from capprune.serving.models import read_models

    models = read_models(tuple(map(given_path, bundles)) or (ready_bundle(),))
    if static is not None:
        engines = {"tflite": optional_path(engine), "onnx": optional_path(onnx_engine)}
        return _write(models, given_path(static), engines, progress)
    limits = Limits(
        upload_bytes=round(max_upload * 1_000_000),
        pixels=round(max_pixels * 1_000_000),
        seconds=max_seconds,
        parallel=parallel,
        waiting=waiting,
        connections=max(256, 2 * (parallel + waiting)),
    )
    _serve(models, limits, host, port, {"runtime": runtime, "threads": threads}, progress, started)
    return None


def _serve(
    models: Sequence[ServedModel],
    limits: Limits,
    host: str,
    port: int,
    interpreter: dict[str, Any],
    progress: Progress,
    started: Callable[[Serving], None],
) -> None:
    from starlette.types import ASGIApp

    from capprune.serving.app import make_app
    from capprune.serving.assets import page_assets
    from capprune.serving.server import LOOPBACK, listen, run
    from capprune.serving.workers import Workers

    with listen(host, port) as listening:
        if not (local := host.lower() in LOOPBACK):
            progress.say(f"warning: anyone who can reach {host} can send photos to this server")
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        workers = Workers(models, limits, **interpreter)
        app = make_app(models, workers, limits, page_assets(models, in_browser=False), LOOPBACK if local else None)

        def begin() -> ASGIApp:
            started(Serving(address, tuple(model.facts() for model in models)))
            progress.say("Ctrl-C ends it")
            return app

        try:
            run(begin, listening, limits)
        finally:
            workers.close()


def _write(
    models: Sequence[ServedModel], static: Path, engines: Mapping[str, Path | None], progress: Progress
) -> StaticPage:
    from capprune.serving.static import write_static

    written = write_static(models, static, engines, progress.say)
    return StaticPage(static, written.total_bytes, dict(written.download_bytes))
