"""`capprune caption`: caption photos with a bundle, without torch."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capprune.api.captions import caption
from capprune.cli.caption_isolated import caption_isolated
from capprune.cli.console import (
    Place,
    cache_option,
    echo,
    emit,
    json_option,
    on_option,
    out_file_option,
    say,
    threads_option,
    workers_option,
)
from capprune.cli.progress import TerminalProgress
from capprune.ready import ready_bundle
from capprune_runtime.formats import RUNTIMES
from capprune_runtime.streams import nothing_to_clean_up, one_line, output_may_end

if TYPE_CHECKING:
    from capprune_runtime.caption.said import Said


@click.command()
@click.argument("photos", nargs=-1, required=True, type=Place(), metavar="PHOTO|FOLDER|SHARDS|-...")
@click.option("--bundle", type=Place(), help="Bundle, a folder or a .capz file.  [default: the package's own]")
@click.option("--beam", type=click.IntRange(1, 100), help="Beam width.  [default: the bundle's]")
@click.option(
    "--explain",
    type=Place(file_okay=False),
    metavar="FOLDER",
    help="Folder for pictures of the attention for each word.",
)
@out_file_option(help="Write all captions to a .csv or .json file as well.")
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help=f"auto, {', '.join(RUNTIMES)}.",
)
@threads_option
@workers_option
@on_option
@cache_option
@click.option(
    "--isolated",
    is_flag=True,
    help="Decode the photos and run the models in a separate process with a memory limit, for untrusted files.",
)
@json_option
def command(
    photos: tuple[Path, ...],
    bundle: Path | None,
    beam: int | None,
    explain: Path | None,
    out: Path | None,
    runtime: str,
    threads: int,
    workers: int | None,
    on: str | None,
    cache: Path | None,
    isolated: bool,
    as_json: bool,
) -> None:
    """Caption photos, or all photos of folders; - reads a photo from standard input.

    The bundle is verified before it is loaded. Works offline, on a CPU. Captions below the bundle's confidence limit are
    marked. A photo that cannot be read is reported and does not stop the others; the exit code is then that of the first error.
    With --out, the same command resumes an interrupted one. A folder of shards stands for the photos in it. With
    --workers or --on ray, several processes caption at the same time, with the same result.

    \b
    Example:
      capprune caption photo.jpg
      capprune caption holiday/ --out captions.csv --explain where-it-looked
    """
    if isolated:
        options = {"bundle": bundle, "beam": beam, "explain": explain, "out": out, "runtime": runtime}
        options |= {"threads": threads, "workers": workers, "on": on, "cache": cache}
        caption_isolated(photos, options, bundle or ready_bundle(), as_json)

    if workers is None and on is None:
        nothing_to_clean_up()
    gc.disable()  # loaded objects live until the end; collecting garbage takes a twentieth of the start

    def each(said: Said, alone: bool) -> None:
        gc.enable()
        with nullcontext() if out is None else output_may_end():  # finish the table even if nobody reads stdout
            _print(said, alone, as_json)

    found = caption(
        photos,
        bundle=bundle,
        beam=beam,
        explain=explain,
        out=out,
        runtime=runtime,
        threads=threads,
        workers=workers,
        on=on,
        cache=cache,
        progress=TerminalProgress(),
        each=each,
    )
    with nullcontext() if out is None else output_may_end():
        emit(found.as_json(), as_json, lambda: None)
    if found.errors:
        raise SystemExit(found.errors[0].exit_code)


def _print(said: Said, alone: bool, as_json: bool) -> None:
    if said.warning is not None:
        say(f"warning: {said.warning}")
    if said.error is not None:
        say(f"error: {said.error}")
    elif not as_json and said.marked is not None:
        echo(said.marked if alone else f"{one_line(said.name)}\t{said.marked}")
