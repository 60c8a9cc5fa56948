"""Captions of many photos, with a table, pictures of the attention, and a journal for interruptions. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, needs, optional_path
from capprune.api.caption_inputs import Named, content_of, named_photos
from capprune.api.html import html_table
from capprune.training.progress import SILENT, Progress

if TYPE_CHECKING:
    from capprune.api.caption_spread import CaptionSettings
    from capprune.workers import Workers
    from capprune_runtime.caption.captioner import Captioner
    from capprune_runtime.caption.said import Said
    from capprune_runtime.errors import CapPruneError
    from capprune_runtime.measure.caption_journal import CaptionJournal


@dataclass(frozen=True)
class Captions:
    """Captions of many photos.

    Attributes:
        bundle: The bundle.
        runtime: The interpreter that ran it.
        low_confidence_below: Mean log-probability per word below which a caption is unsure; None if unmeasured.
        captions: One entry for each photo; an error instead of a caption if the photo cannot be read.
    """

    bundle: Path
    runtime: str
    low_confidence_below: float | None
    captions: tuple[Said, ...]

    @property
    def errors(self) -> tuple[CapPruneError, ...]:
        """Errors of the photos that could not be captioned."""
        return tuple(one.error for one in self.captions if one.error is not None)

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune caption --json` prints."""
        facts = {"bundle": str(self.bundle), "runtime": self.runtime, "low_confidence_below": self.low_confidence_below}
        return {**facts, "captions": [one.as_json() for one in self.captions]}

    def _repr_html_(self) -> str:
        rows = [[one.name, one.marked or str(one.error)] for one in self.captions]
        return html_table("", ["photo", "caption"], rows)


@needs("caption")
def caption(
    photos: Sequence[Place],
    *,
    bundle: Place | None = None,
    beam: int | None = None,
    explain: Place | None = None,
    out: Place | None = None,
    runtime: str = "auto",
    threads: int = 1,
    workers: int | None = None,
    on: str | None = None,
    cache: Place | None = None,
    progress: Progress = SILENT,
    each: Callable[[Said, bool], None] = lambda said, alone: None,
) -> Captions:
    """Caption photos, or all photos of folders. A photo that cannot be read does not stop the others.

    Args:
        photos: Files, folders, and folders of shards; `-` is standard input.
        bundle: A folder or a `.capz`; the package's own by default.
        beam: Beam width; the bundle's own by default.
        explain: Folder for pictures of the attention for each word.
        out: A `.csv` or `.json` file for all captions; an interrupted call is resumed from its journal.
        runtime: An interpreter, or `auto`.
        threads: Threads of the interpreter.
        workers: Number of parallel processes; 1 by default, all processors with `on="ray"`.
        on: `ray[:ADDRESS]` to run on a Ray cluster.
        cache: Folder for downloaded shards and expanded bundles; `~/.cache/capprune` by default.
        progress: Receives progress messages.
        each: Called with every caption when it is ready, and with whether there is only one photo.

    Raises:
        UsageError: The only argument names no photo, or an output path cannot be written to.
        BundleError: The bundle does not pass the verifier.
    """
    from capprune.api.caption_spread import CaptionSettings, places_to_caption
    from capprune.data.cache_folder import default_cache
    from capprune.ready import ready_bundle
    from capprune_runtime.atomic import check_folder_place
    from capprune_runtime.bundle.cache import expanded_cache
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.caption.captioner import Captioner
    from capprune_runtime.caption.confidence import confidence_of
    from capprune_runtime.caption.inputs import input_endings
    from capprune_runtime.caption.said import check_table
    from capprune_runtime.measure.caption_journal import CaptionJournal, session_of

    table, pictures = optional_path(out), optional_path(explain)
    if table is not None:
        check_table(table)
    if pictures is not None:
        check_folder_place(pictures, new=False)
    place = optional_path(bundle) or ready_bundle()
    verified = verify_bundle(place, expanded_cache(optional_path(cache)))
    if pictures is not None:
        from capprune_runtime.caption.explain import require_explainable

        require_explainable(verified.manifest)
    captioner = Captioner(verified, runtime=runtime, threads=threads)
    confidence = confidence_of(verified)
    folder = (optional_path(cache) or default_cache()).resolve()
    given = [photos] if isinstance(photos, str | os.PathLike) else photos
    endings = input_endings(verified.manifest.preprocessing)
    named = named_photos(tuple(map(given_path, given)), endings, folder, progress)
    spread = places_to_caption(on, workers, pictures)
    explained = _pictures(pictures, [one.path for one in named if one.problem is None], progress)
    journal = CaptionJournal(table, {} if table is None else session_of(verified, captioner.runtime, beam))
    work = _Work(captioner, beam, confidence, journal, explained, progress, each, folder)
    if spread is not None:
        work.spread(named, spread, CaptionSettings(str(place.resolve()), runtime, threads, beam, confidence, folder))
    return Captions(place, captioner.runtime, confidence, tuple(work.caption_all(named, table)))


def _pictures(explain: Path | None, photos: Sequence[Path], progress: Progress) -> dict[Path, Path]:
    """Return the path of the picture for each photo, and report those that cannot be named like their photo."""
    if explain is None:
        return {}
    from capprune_runtime.caption.explain import explanation_places

    places = explanation_places(explain, photos)
    for photo, place in places.items():
        if place.stem != photo.stem:
            progress.say(f"several photos are called {photo.stem}: {photo} is explained in {place}")
    return places


@dataclass(frozen=True)
class _Work:
    """Objects that captioning needs, besides the photos."""

    captioner: Captioner
    beam: int | None
    confidence: float | None
    journal: CaptionJournal
    pictures: Mapping[Path, Path]
    progress: Progress
    each: Callable[[Said, bool], None]
    cache: Path
    said: dict[Named, Said] = field(default_factory=dict)

    def spread(self, named: Sequence[Named], places: Workers, settings: CaptionSettings) -> None:
        """Caption the photos that are not in the journal, with several workers."""
        from capprune.api.caption_spread import can_be_spread, caption_by_workers

        left = [one for one in named if can_be_spread(one) and self.journal.caption(one.path, one.identity) is None]
        try:
            with self.progress.bar("captions") as tell:
                for one, said in caption_by_workers(left, places, settings, tell):
                    self.said[one] = said
                    if said.caption is not None:
                        self.journal.keep(one.path, said.caption, one.identity)
        except BaseException:
            self.journal.close(finished=False)
            raise

    def caption_all(self, named: Sequence[Named], out: Path | None) -> list[Said]:
        """Caption every photo and write the table; after an interruption, write the captions so far."""
        from capprune_runtime.caption.said import write_table
        from capprune_runtime.errors import CapPruneError

        if self.journal.count:
            self.progress.say(f"resuming with {self.journal.count} captions of an interrupted command")
        said: list[Said] = []
        try:
            for one in named:
                said.append(self._caption(one, self.pictures.get(one.path)))
                self.each(said[-1], len(named) == 1)
        except BaseException as stop:
            self.journal.close(finished=False)
            if out is not None and said:
                with suppress(CapPruneError):  # the captions are in the journal
                    write_table(out, said)
                    stop.add_note(f"{out}: {len(said)} of {len(named)} photos")
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
        except CapPruneError as error:  # other photos may be readable
            return Said(one.path, None, None, error)
        if explanation is not None:
            from capprune_runtime.caption.explain import write_explanation

            write_explanation(explanation, tile, look.caption)
        self.journal.keep(one.path, look.caption, one.identity)
        return Said(one.path, look.caption, self.confidence, None, look.warning)
