"""`capprune caption`: what is in photos, from a bundle; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capprune.cli.console import emit, json_option, say, threads_option
from capprune_runtime.formats import RUNTIMES

if TYPE_CHECKING:
    from capprune.captioning.said import Said
    from capprune_runtime.caption.captioner import Captioner


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="A folder or packed.  [default: the package's own]")
@click.option("--beam", type=click.IntRange(1, 100), help="Hypotheses kept in the search.  [default: the bundle's]")
@click.option(
    "--explain",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Draw for every photo where the model looked for each word.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write all captions to a .csv or .json file as well."
)
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help=f"auto, {', '.join(RUNTIMES)}.",
)
@threads_option
@json_option
def command(
    photos: tuple[Path, ...],
    bundle: Path | None,
    beam: int | None,
    explain: Path | None,
    out: Path | None,
    runtime: str,
    threads: int,
    as_json: bool,
) -> None:
    """Say what is in photos, or in all photos of a folder.

    The bundle is verified before it is loaded. Works offline, on a CPU. A caption of which the model was not sure is marked
    so. A photo that cannot be read is named, and the others are captioned; the exit code is then that of the first error.

    \b
    Example:
      capprune caption photo.jpg
      capprune caption holiday/ --out captions.csv --explain where-it-looked
    """
    from capprune.captioning.ready import ready_bundle
    from capprune.captioning.said import check_table, confidence_of, write_table
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.caption.captioner import Captioner

    if out is not None:
        check_table(out)
    found = _photos(photos)
    pictures = _pictures(explain, found)
    place = bundle or ready_bundle()
    verified = verify_bundle(place)
    if explain is not None and verified.manifest.interface.regions is None:
        from capprune.captioning.explain import without_attention

        raise without_attention()
    captioner = Captioner(verified, runtime=runtime, threads=threads)
    confidence = confidence_of(verified)
    said: list[Said] = []
    for path in found:
        said.append(_caption(captioner, path, beam, confidence, pictures.get(path)))
        _tell(said[-1], len(found) == 1, as_json)
    if out is not None:
        write_table(out, said)
    document = {"bundle": str(place), "runtime": captioner.runtime, "low_confidence_below": confidence}
    emit({**document, "captions": [one.as_json() for one in said]}, as_json, lambda: None)
    failed = [one.error for one in said if one.error is not None]
    if failed:
        raise SystemExit(failed[0].exit_code)


def _photos(places: Sequence[Path]) -> list[Path]:
    from capprune.captioning.said import photos_in
    from capprune_runtime.errors import UsageError

    def each() -> Iterator[Path]:
        for place in places:
            if place.is_dir():
                yield from photos_in(place)
            elif place.is_file():
                yield place
            else:
                raise UsageError("there is no such photo", where=place)

    return list(each())


def _pictures(explain: Path | None, photos: Sequence[Path]) -> dict[Path, Path]:
    """Where the picture of each photo goes; those that cannot be called as their photo are named."""
    if explain is None:
        return {}
    from capprune.captioning.explain import explanation_places

    places = explanation_places(explain, photos)
    for photo, place in places.items():
        if place.stem != photo.stem:
            say(f"several photos are called {photo.stem}: {photo} is explained in {place}")
    return places


def _caption(
    captioner: Captioner, path: Path, beam: int | None, confidence: float | None, picture: Path | None
) -> Said:
    from capprune.captioning.said import Said
    from capprune_runtime.errors import CapPruneError
    from capprune_runtime.photo import read_photo

    try:
        photo = read_photo(path, captioner.bundle.manifest.photo_size)
        caption = captioner.caption(photo, beam=beam)
        if picture is not None:
            from capprune.captioning.explain import write_explanation

            write_explanation(picture, path, caption)
    except CapPruneError as error:  # the others may still be read
        return Said(path, None, None, error)
    return Said(path, caption, confidence, None)


def _tell(said: Said, alone: bool, as_json: bool) -> None:
    if said.error is not None:
        say(f"error: {said.error}")
    elif not as_json and said.caption is not None:
        named = said.caption.text if alone else f"{said.photo}\t{said.caption.text}"
        click.echo(named + ("  (not sure)" if said.unsure else ""))
