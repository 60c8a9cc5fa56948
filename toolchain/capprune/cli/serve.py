"""`capprune serve`: a page that captions photos, from a server or inside the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import Place, echo, emit, json_option, say, threads_option
from capprune_runtime.formats import RUNTIMES

if TYPE_CHECKING:
    from capprune.serving.limits import Limits
    from capprune.serving.models import ServedModel


@click.command()
@click.argument("bundles", nargs=-1, type=Place(), metavar="[BUNDLE]...")
@click.option(
    "--static",
    type=Place(file_okay=False),
    metavar="FOLDER",
    help="Write the page as files that run the bundles inside the browser, and start no server.",
)
@click.option(
    "--engine",
    type=Place(file_okay=False),
    metavar="FOLDER",
    help="With --static: the unpacked npm package of LiteRT.js.  [default: fetched once by npm]",
)
@click.option(
    "--onnx-engine",
    type=Place(file_okay=False),
    metavar="FOLDER",
    help="The same for ONNX bundles: the package of onnxruntime-web.  [default: fetched once by npm]",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; others than the default let others in.",
)
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0 takes any free one.")
@click.option(
    "--max-upload", type=click.FloatRange(0.01, 256), default=20.0, show_default=True, help="MB of a photo file."
)
@click.option(
    "--max-pixels", type=click.FloatRange(0.01, 100), default=50.0, show_default=True, help="Megapixels of a photo."
)
@click.option("--max-seconds", type=click.FloatRange(0.5, 600), default=30.0, show_default=True, help="Of one request.")
@click.option("--parallel", type=click.IntRange(1, 64), default=1, show_default=True, help="Captions at the same time.")
@click.option(
    "--waiting",
    type=click.IntRange(0, 1000),
    default=64,
    show_default=True,
    help="Requests that may wait; more are refused.",
)
@click.option("--runtime", default="auto", show_default=True, help=f"auto, {', '.join(RUNTIMES)}.")
@threads_option
@json_option
def command(
    bundles: tuple[Path, ...],
    static: Path | None,
    engine: Path | None,
    onnx_engine: Path | None,
    host: str,
    port: int,
    max_upload: float,
    max_pixels: float,
    max_seconds: float,
    parallel: int,
    waiting: int,
    runtime: str,
    threads: int,
    as_json: bool,
) -> None:
    """Open a page where a photo that is dropped gets its caption, word by word.

    Give several bundles to switch between them: dense, sparse, int8. Every bundle is verified first. No photo is kept, and no
    request leaves the machine. Ctrl-C ends the server when the requests that it has begun are answered. POST /caption is the
    same for programs; /openapi.json describes it.

    \b
    Example:
      capprune serve
      capprune serve bundles/dense bundles/sparse --port 8080
      capprune serve bundles/sparse --static demo-page
      curl --data-binary @photo.jpg http://127.0.0.1:8000/caption
    """
    from capprune.ready import ready_bundle
    from capprune.serving.limits import Limits
    from capprune.serving.models import read_models

    models = read_models(bundles or (ready_bundle(),))
    if static is not None:
        _write(models, static, {"tflite": engine, "onnx": onnx_engine}, as_json)
        return
    limits = Limits(
        upload_bytes=round(max_upload * 1_000_000),
        pixels=round(max_pixels * 1_000_000),
        seconds=max_seconds,
        parallel=parallel,
        waiting=waiting,
        connections=max(256, 2 * (parallel + waiting)),
    )
    _serve(models, limits, host, port, {"runtime": runtime, "threads": threads}, as_json)


def _serve(
    models: Sequence[ServedModel], limits: Limits, host: str, port: int, interpreter: dict[str, Any], as_json: bool
) -> None:
    from starlette.types import ASGIApp

    from capprune.serving.app import make_app
    from capprune.serving.assets import page_assets
    from capprune.serving.server import LOOPBACK, listen, run
    from capprune.serving.workers import Workers

    with listen(host, port) as listening:
        if not (local := host.lower() in LOOPBACK):
            say(f"warning: everybody who reaches {host} can send photos to this server")
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        workers = Workers(models, limits, **interpreter)
        app = make_app(models, workers, limits, page_assets(models, in_browser=False), LOOPBACK if local else None)

        def started() -> ASGIApp:
            document = {"address": address, "models": [model.facts() for model in models]}
            emit(document, as_json, lambda: echo(address))
            say("Ctrl-C ends it")
            return app

        try:
            run(started, listening, limits)
        finally:
            workers.close()


def _write(models: Sequence[ServedModel], static: Path, packages: Mapping[str, Path | None], as_json: bool) -> None:
    from capprune.serving.static import write_static

    written = write_static(models, static, packages, say)

    def show() -> None:
        for name, size in written.download_bytes.items():
            echo(f"{name}: the first visit loads {size:,} bytes")
        echo(f"written: {static}, {written.total_bytes:,} bytes")
        echo(f"next: python -m http.server --directory {static} --bind 127.0.0.1")

    emit(
        {"folder": str(static), "bytes": written.total_bytes, "download_bytes": dict(written.download_bytes)},
        as_json,
        show,
    )
