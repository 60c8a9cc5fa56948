"""`capprune serve`: a page that captions photos, on a server or in the browser."""

from __future__ import annotations

from pathlib import Path

import click

from capprune.api.server import StaticPage, serve
from capprune.cli.console import Place, echo, emit, json_option, threads_option
from capprune.cli.progress import TerminalProgress
from capprune_runtime.formats import RUNTIMES


@click.command()
@click.argument("bundles", nargs=-1, type=Place(), metavar="[BUNDLE]...")
@click.option(
    "--static",
    type=Place(file_okay=False),
    metavar="FOLDER",
    help="Folder for the page as files that run the bundles in the browser; starts no server.",
)
@click.option(
    "--engine",
    type=Place(file_okay=False),
    metavar="FOLDER",
    help="With --static: the unpacked npm package of LiteRT.js.  [default: downloaded once by npm]",
)
@click.option(
    "--onnx-engine",
    type=Place(file_okay=False),
    metavar="FOLDER",
    help="The same for ONNX bundles: the package of onnxruntime-web.  [default: downloaded once by npm]",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; any other than the default admits other machines.",
)
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="Port; 0 for any free one."
)
@click.option(
    "--max-upload",
    type=click.FloatRange(0.01, 256),
    default=20.0,
    show_default=True,
    help="Maximum size of a photo file in MB.",
)
@click.option(
    "--max-pixels",
    type=click.FloatRange(0.01, 100),
    default=50.0,
    show_default=True,
    help="Maximum size of a photo in megapixels.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(0.5, 600),
    default=30.0,
    show_default=True,
    help="Maximum duration of a request in seconds.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Number of captions computed in parallel.",
)
@click.option(
    "--waiting",
    type=click.IntRange(0, 1000),
    default=64,
    show_default=True,
    help="Maximum number of waiting requests; further ones are refused.",
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
    """Serve a page that captions a dropped photo, word by word.

    With several bundles, the page can switch between them: dense, sparse, int8. Every bundle is verified first. No photo is
    stored, and no request leaves the machine. Ctrl-C stops the server after the requests in progress. Programs use POST
    /caption, which /openapi.json describes.

    \b
    Example:
      capprune serve
      capprune serve bundles/dense bundles/sparse --port 8080
      capprune serve bundles/sparse --static demo-page
      curl --data-binary @photo.jpg http://127.0.0.1:8000/caption
    """
    page = serve(
        bundles,
        static=static,
        engine=engine,
        onnx_engine=onnx_engine,
        host=host,
        port=port,
        max_upload=max_upload,
        max_pixels=max_pixels,
        max_seconds=max_seconds,
        parallel=parallel,
        waiting=waiting,
        runtime=runtime,
        threads=threads,
        progress=TerminalProgress(),
        started=lambda serving: emit(serving.as_json(), as_json, lambda: echo(serving.address)),
    )
    if page is not None:
        emit(page.as_json(), as_json, lambda: _show(page))


def _show(page: StaticPage) -> None:
    for name, size in page.download_bytes.items():
        echo(f"{name}: the first visit loads {size:,} bytes")
    echo(f"written: {page.folder}, {page.total_bytes:,} bytes")
    echo(f"next: python -m http.server --directory {page.folder} --bind 127.0.0.1")
