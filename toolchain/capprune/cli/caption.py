"""`capprune caption`: what is in photos, from a bundle; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from capprune.cli.console import emit, json_option, say, threads_option


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="The bundle, a folder or packed.")
@click.option("--beam", type=click.IntRange(1, 100), help="Hypotheses kept in the search.  [default: the bundle's]")
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help="auto, ai-edge-litert, tflite-runtime, tensorflow or onnxruntime.",
)
@threads_option
@json_option
def command(
    photos: tuple[Path, ...], bundle: Path, beam: int | None, runtime: str, threads: int, as_json: bool
) -> None:
    """Say what is in photos.

    The bundle is verified before it is loaded. Works offline, on a CPU. A photo that cannot be read is named, and the
    others are captioned; the exit code is then that of the first error.

    \b
    Example:
      capprune caption photo.jpg --bundle bundles/sparse
    """
    from capprune_runtime.captioner import Captioner
    from capprune_runtime.errors import CapPruneError, UsageError
    from capprune_runtime.photo import read_photo
    from capprune_runtime.verify import verify_bundle

    for path in photos:
        if not path.is_file():
            raise UsageError("there is no such photo", where=path)
    verified = verify_bundle(bundle)
    captioner = Captioner(verified, runtime=runtime, threads=threads)
    said: list[dict[str, Any]] = []
    exit_code = 0
    for path in photos:
        try:
            row = captioner.caption(read_photo(path, verified.manifest.preprocessing.size), beam=beam).as_json()
        except CapPruneError as error:  # the others may still be read
            row, exit_code = error.as_json(), exit_code or error.exit_code
            say(f"error: {error}")
        said.append({"photo": str(path), **row})
        if not as_json and "caption" in row:
            click.echo(row["caption"] if len(photos) == 1 else f"{path}\t{row['caption']}")
    emit({"bundle": str(bundle), "runtime": captioner.runtime, "captions": said}, as_json, lambda: None)
    if exit_code:
        raise SystemExit(exit_code)
