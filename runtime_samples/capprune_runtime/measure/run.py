"""Caption a folder of photos with `capprune_runtime run`: captions, token ids and times of every photo."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from capprune_runtime import stopping
from capprune_runtime.caption.inputs import Preprocessing, input_endings, read_input
from capprune_runtime.errors import DataError, UsageError
from capprune_runtime.measure.journal import Journal, Line
from capprune_runtime.measure.results import RUN, SCHEMA_VERSION, Measurement, Settings, write_document
from capprune_runtime.measure.session import WARM_UP, Photo, Session, measured
from capprune_runtime.photo import ENDINGS
from capprune_runtime.photo_folder import find_photos
from capprune_runtime.streams import shown_name

Tell = Callable[[Line], None]
Note = Callable[[str], None]


def run_photos(
    bundle: Path,
    folder: Path,
    *,
    out: Path | None = None,
    beam: int | None = None,
    runtime: str = "auto",
    threads: int = 1,
    limit: int | None = None,
    tell: Tell | None = None,
    note: Note | None = None,
    begun: Callable[[Session], None] | None = None,
) -> Measurement:
    """Caption every photo of a folder with a bundle.

    With `out`, captions are stored in a journal beside it as they are generated. After an interruption, the same call
    resumes where it stopped. At the end the document replaces the journal.

    Args:
        bundle: The bundle, a folder or packed.
        folder: Folder of the photos, at any depth; they are captioned in the order of their names.
        out: Path of the document.
        beam: Beam width; None for the bundle's own.
        runtime: See `interpreter.open_model`.
        threads: Number of threads of the interpreter.
        limit: Caption only the first `limit` photos.
        tell: Called with every line of the journal.
        note: Called with a line about the files of the folder that were left out.
        begun: Called with the session when the bundle is loaded.

    Raises:
        UsageError: There is no such folder or bundle.
        DataError: There is no photo, or no photo can be read.
        BundleError: The bundle cannot be run.
    """
    if limit is not None and limit < 1:
        raise UsageError("the limit is too small", where="--limit", expected="1 or more", found=limit)
    session = Session(bundle, runtime, threads)
    preprocessing = session.bundle.manifest.preprocessing
    names = photo_names(folder, note, input_endings(preprocessing))[:limit]
    if begun is not None:
        begun(session)
    width = session.beam(beam)
    journal = Journal(None if out is None else journal_path(out), session_key(session, width))
    try:
        _say_all(session, width, folder, names, journal, tell)
        shown = [shown_name(name) for name in names]
        said = [journal.said[name] for name in shown if name in journal.said]
        failures = [journal.failed[name] for name in shown if name in journal.failed]
        if not said:
            raise DataError("none of the photos can be read", where=folder, found=failures[0].message)
        settings = Settings(width, WARM_UP, journal.sessions)
        measurement = measured(RUN, session, said, settings, failures=failures, before=journal.before)
        if out is not None:
            write_document(measurement.as_json(), out)
            journal.close(remove=True)
        return measurement
    finally:
        journal.close()


def _say_all(session: Session, width: int, folder: Path, names: list[str], journal: Journal, tell: Tell | None) -> None:
    remaining = [name for name in names if shown_name(name) not in journal.done]
    if not remaining:
        return
    journal.begin(session.began)
    if tell is not None:
        tell(Line(session_key(session, width), session.began))
    for photo in session.say(_photos(folder, remaining, session.bundle.manifest.preprocessing), width):
        line = Line(photo=photo)
        journal.write(line)
        if tell is not None:
            tell(line)
        stopping.raise_if_requested()


def session_key(session: Session, beam: int) -> dict[str, Any]:
    """Return the settings that must be equal for captions of another process to be reused."""
    return {
        "schema_version": SCHEMA_VERSION,
        "manifest_sha256": session.facts.manifest_sha256,
        "runtime": session.captioner.runtime,
        "threads": session.threads,
        "beam": beam,
    }


def journal_path(out: Path) -> Path:
    """Return the path of the journal beside a results document: results.jsonl for results.json."""
    return out.with_name(out.name.removesuffix(".json") + ".jsonl")


def photo_names(folder: Path, note: Note | None = None, endings: frozenset[str] = ENDINGS) -> list[str]:
    """Return the photos under a folder, at any depth, as sorted relative paths with `/`.

    Args:
        folder: The folder.
        note: Called with a line about the files that were left out.
        endings: Extensions of the files that count, in lower case.

    Raises:
        UsageError: There is no such folder.
        DataError: The folder holds no photo.
    """
    if not folder.is_dir():
        raise UsageError("there is no such folder of photos", where=folder)
    found = find_photos(folder, endings)
    if note is not None and (text := found.left_out_text()) is not None:
        note(text)
    return sorted(path.relative_to(folder).as_posix() for path in found.photos)


def _photos(folder: Path, names: list[str], preprocessing: Preprocessing) -> Iterator[Photo]:
    for name in names:
        yield Photo(shown_name(name), functools.partial(read_input, folder / name, preprocessing))
