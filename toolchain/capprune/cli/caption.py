"""`capprune caption`: what is in photos, from a bundle; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capprune.cli.caption_inputs import Named, content_of, named_photos
from capprune.cli.caption_isolated import caption_isolated
from capprune.cli.caption_spread import CaptionSettings, can_be_spread, caption_by_workers, places_to_caption
from capprune.cli.console import (
    Place,
    bar,
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
from capprune_runtime.formats import RUNTIMES
from capprune_runtime.streams import output_may_end, printable

if TYPE_CHECKING:
    from capprune.workers import Workers
    from capprune_runtime.caption.captioner import Captioner
    from capprune_runtime.caption.said import Said
    from capprune_runtime.measure.caption_journal import CaptionJournal


@click.command()
@click.argument("photos", nargs=-1, required=True, type=Place(), metavar="PHOTO|FOLDER|SHARDS|-...")
@click.option("--bundle", type=Place(), help="A folder or packed.  [default: the package's own]")
@click.option("--beam", type=click.IntRange(1, 100), help="Hypotheses kept in the search.  [default: the bundle's]")
@click.option(
    "--explain",
    type=Place(file_okay=False),
    metavar="FOLDER",
    help="Draw for every photo where the model looked for each word.",
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
    help="Decode the photos and run the models in a process of its own with a limit on memory, for files of strangers.",
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
    """Say what is in photos, or in all photos of a folder; - reads a photo from standard input.

    The bundle is verified before it is loaded. Works offline, on a CPU. A caption of which the model was not sure is marked
    so. A photo that cannot be read is named, and the others are captioned; the exit code is then that of the first error.
    With --out the same command goes on where an interrupted one stopped. A folder of shards counts as the photos in it. With
    --workers or --on ray several processes caption at once, and the result is the same.

    \b
    Example:
      capprune caption photo.jpg
      capprune caption holiday/ --out captions.csv --explain where-it-looked
    """
    from capprune.data.cache_folder import default_cache
    from capprune.ready import ready_bundle
    from capprune_runtime.atomic import check_folder_place
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.caption.captioner import Captioner
    from capprune_runtime.caption.confidence import confidence_of
    from capprune_runtime.caption.inputs import input_endings
    from capprune_runtime.caption.said import check_table
    from capprune_runtime.measure.caption_journal import CaptionJournal, session_of

    if isolated:
        options = {
            "bundle": bundle,
            "beam": beam,
            "explain": explain,
            "out": out,
            "runtime": runtime,
            "threads": threads,
        }
        options |= {"workers": workers, "on": on, "cache": cache}
        caption_isolated(photos, options, bundle or ready_bundle(), as_json)
    if out is not None:
        check_table(out)
    if explain is not None:
        check_folder_place(explain, new=False)
    place = bundle or ready_bundle()
    verified = verify_bundle(place)
    if explain is not None:
        from capprune_runtime.caption.explain import require_explainable

        require_explainable(verified.manifest)
    captioner = Captioner(verified, runtime=runtime, threads=threads)
    confidence = confidence_of(verified)
    cache = (cache or default_cache()).resolve()
    named = named_photos(photos, input_endings(verified.manifest.preprocessing), cache)
    spread = places_to_caption(on, workers, explain)
    pictures = _pictures(explain, [one.path for one in named if one.problem is None])
    journal = CaptionJournal(out, session_of(verified, captioner.runtime, beam))
    work = _Work(captioner, beam, confidence, journal, pictures, as_json, cache)
    if spread is not None:
        work.spread(named, spread, CaptionSettings(str(place.resolve()), runtime, threads, beam, confidence, cache))
    said = work.caption_all(named, out)
    document = {"bundle": str(place), "runtime": captioner.runtime, "low_confidence_below": confidence}
    with nullcontext() if out is None else output_may_end():
        emit({**document, "captions": [one.as_json() for one in said]}, as_json, lambda: None)
    failed = [one.error for one in said if one.error is not None]
    if failed:
        raise SystemExit(failed[0].exit_code)


def _pictures(explain: Path | None, photos: Sequence[Path]) -> dict[Path, Path]:
    """Where the picture of each photo goes; those that cannot be called as their photo are named."""
    if explain is None:
        return {}
    from capprune_runtime.caption.explain import explanation_places

    places = explanation_places(explain, photos)
    for photo, place in places.items():
        if place.stem != photo.stem:
            say(f"several photos are called {photo.stem}: {photo} is explained in {place}")
    return places


@dataclass(frozen=True)
class _Work:
    """What captioning takes, beside the photos."""

    captioner: Captioner
    beam: int | None
    confidence: float | None
    journal: CaptionJournal
    pictures: Mapping[Path, Path]
    as_json: bool
    cache: Path
    said: dict[Named, Said] = field(default_factory=dict)

    def spread(self, named: Sequence[Named], places: Workers, settings: CaptionSettings) -> None:
        """Caption by several workers what the journal does not hold."""
        left = [one for one in named if can_be_spread(one) and self.journal.caption(one.path, one.identity) is None]
        try:
            with bar("captions") as tell:
                for one, said in caption_by_workers(left, places, settings, tell):
                    self.said[one] = said
                    if said.caption is not None:
                        self.journal.keep(one.path, said.caption, one.identity)
        except BaseException:
            self.journal.close(finished=False)
            raise

    def caption_all(self, named: Sequence[Named], out: Path | None) -> list[Said]:
        """Caption every photo and write the table; after an interruption, the table of what there is."""
        from capprune_runtime.caption.said import write_table
        from capprune_runtime.errors import CapPruneError

        if self.journal.count:
            say(f"going on with {self.journal.count} captions of an interrupted command")
        said: list[Said] = []
        try:
            for one in named:
                said.append(self._caption(one, self.pictures.get(one.path)))
                with nullcontext() if out is None else output_may_end():  # the table is worth finishing
                    _tell(said[-1], len(named) == 1, self.as_json)
        except BaseException:
            self.journal.close(finished=False)
            if out is not None and said:
                with suppress(CapPruneError):  # the journal has them
                    write_table(out, said)
                    click.echo(
                        printable(f"{out}: {len(said)} of {len(named)} photos; the same command goes on"), err=True
                    )
            raise
        if out is not None:
            write_table(out, said)
        self.journal.close(finished=True)
        return said

    def _caption(self, one: Named, explanation: Path | None) -> Said:
        from capprune_runtime.caption.look import look_at
        from capprune_runtime.caption.said import Said
        from capprune_runtime.errors import CapPruneError

        if one.problem is not None:
            return Said(one.path, None, None, one.problem)
        if one in self.said:
            return self.said[one]
        done = self.journal.caption(one.path, one.identity)
        if done is not None and (explanation is None or explanation.is_file()):
            return Said(one.path, done, self.confidence, None)
        try:
            look = look_at(self.captioner, one.path, self.beam, content=content_of(one, self.cache))
            if explanation is not None:
                from capprune_runtime.caption.explain import tile_of

                tile = tile_of(look)
        except CapPruneError as error:  # the others may still be read
            return Said(one.path, None, None, error)
        if explanation is not None:
            from capprune_runtime.caption.explain import write_explanation

            write_explanation(explanation, tile, look.caption)
        self.journal.keep(one.path, look.caption, one.identity)
        return Said(one.path, look.caption, self.confidence, None, look.warning)


def _tell(said: Said, alone: bool, as_json: bool) -> None:
    if said.warning is not None:
        say(f"warning: {said.warning}")
    if said.error is not None:
        say(f"error: {said.error}")
    elif not as_json and said.marked is not None:
        echo(said.marked if alone else f"{said.name}\t{said.marked}")
