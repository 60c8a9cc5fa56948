"""Turns a folder of photos into a data set for `capprune train`: generate, filter, split, write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from PIL import Image

from capprune.data.captions import CaptionedPhoto
from capprune.data.left_out import LeftOut, LeftOutBook
from capprune.data.photos import PhotoStore, open_photos
from capprune.data.split_shares import DEFAULT_SHARES, split_by_shares
from capprune.data.words import words
from capprune.labelling.filters import Filters
from capprune.labelling.journal import LabelJournal
from capprune.labelling.teacher import Label, Teacher
from capprune_runtime.atomic import atomic_folder, check_folder_place
from capprune_runtime.errors import DataError, PhotoError
from capprune_runtime.photo import decode_photo

PHOTOS: Final = "photos"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LabelSettings:
    """Options for making a data set.

    Attributes:
        filters: Conditions on captions.
        keep: Share of the captions that pass the filters, the most confident first; 1 keeps all.
        shares: Shares of train, val and test.
        batch: Photos per call of the teacher.
        limit: Use only the first photos.
        link: Link to photo files instead of copying them; members of tar files are always copied.
        licence: Licence of the captions; by default the one that the teacher states.
        facts: More facts about the teacher, written into the data set.
    """

    filters: Filters = field(default_factory=Filters)
    keep: float = 1.0
    shares: Sequence[float] = DEFAULT_SHARES
    batch: int = 4
    limit: int | None = None
    link: bool = False
    licence: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChosenPhotos:
    """Photos of a data set that has splits, by their names in it.

    Attributes:
        labelled: Photos that the teacher captions; each keeps its split.
        copied: Photos that are copied with their own captions.
    """

    labelled: Sequence[CaptionedPhoto]
    copied: Sequence[CaptionedPhoto] = ()

    def names(self, store: PhotoStore) -> tuple[str, ...]:
        """Return the names of the photos to be captioned, as the store has them.

        Raises:
            DataError: A photo does not exist.
        """
        store.require([photo.name for photo in (*self.labelled, *self.copied)])
        return tuple(_full(store, photo) for photo in self.labelled)


@dataclass(frozen=True)
class LabelledSet:
    """Result of labelling.

    Attributes:
        splits: Number of photos in each split.
        captions: Total number of captions.
        generated: Number of photos captioned by this command; the others were captioned by an interrupted one.
        left_out: Photos and captions that were left out, by reason.
        teacher, licence: As written into the data set.
        copied: Number of photos that were copied with their own captions.
    """

    splits: Mapping[str, int]
    captions: int
    generated: int
    left_out: tuple[LeftOut, ...]
    teacher: str
    licence: str
    copied: int = 0


def label_photos(
    folder: Path,
    out: Path,
    teacher: Teacher,
    settings: LabelSettings,
    progress: Progress | None = None,
    *,
    chosen: ChosenPhotos | None = None,
) -> LabelledSet:
    """Generate captions of photos in a folder and write them as a data set.

    Captions are written to `<out>.labels.jsonl` as they are generated. The same command continues after an
    interruption. The data set appears when it is complete; the file is then removed.

    Args:
        folder: Folder of photos, with subfolders or tar files.
        out: Folder to be made, with `dataset_<name>.json` and `photos/`.
        teacher: Generates the captions.
        settings: Options of the data set.
        progress: Called with the number of finished photos and of all photos.
        chosen: The photos, with their splits; by default all photos of the folder, split by the shares.

    Raises:
        UsageError: `out` exists, the folder does not, or an interrupted command had other options.
        DataError: The folder has no photos, or no caption passes the filters.
    """
    check_folder_place(out)
    licence = settings.licence or teacher.licence or "unknown"
    with open_photos(folder) as store:
        names = (store.names() if chosen is None else chosen.names(store))[: settings.limit]
        session = {"teacher": teacher.identity, "folder": str(folder.resolve())}
        with LabelJournal(out.with_name(out.name + ".labels.jsonl"), session) as journal:
            book = LeftOutBook()
            book.add_all(store.left_out)
            done = _generate(store, names, teacher, settings.batch, journal, progress)
            kept = _chosen(_labels(store, names, journal, book), settings, book, teacher.name)
            copied = () if chosen is None else tuple(chosen.copied)
            if chosen is None:
                splits = split_by_shares(list(kept), settings.shares)
            else:
                splits = {_full(store, photo): photo.split for photo in (*chosen.labelled, *copied)}
            facts = {"teacher": teacher.name, "licence": licence, **settings.filters.as_json(), "keep": settings.keep}
            sentences = {photo: [_sentence(label) for label in labels] for photo, labels in kept.items()}
            sentences |= {_full(store, photo): [{"raw": text} for text in photo.captions] for photo in copied}
            with atomic_folder(out) as unfinished:
                name = folder.resolve().name
                _write(unfinished, name, store, sentences, splits, {**facts, **settings.facts}, link=settings.link)
            journal.remove()
    used = [splits[photo] for photo in sentences]
    total = sum(map(len, kept.values()))
    sizes = {split: used.count(split) for split in dict.fromkeys(used)}
    return LabelledSet(sizes, total, done, book.entries(), teacher.name, licence, len(copied))


def _full(store: PhotoStore, photo: CaptionedPhoto) -> str:
    """Return the name that the store has for a photo, which is a path inside the folder."""
    name = store.resolved(photo.name)
    assert name is not None, photo.name  # `ChosenPhotos.names` has checked
    return name


def _sentence(label: Label) -> dict[str, Any]:
    return {"raw": label.text, "confidence": round(label.confidence, 4)}


def _generate(
    store: PhotoStore,
    names: Sequence[str],
    teacher: Teacher,
    batch: int,
    journal: LabelJournal,
    progress: Progress | None,
) -> int:
    """Fill the journal. Returns the number of photos that were captioned now."""
    left = [name for name in names if not _is_known(store, name, journal)]
    if progress is not None and len(left) < len(names):
        progress(len(names) - len(left), len(names))
    shown = 0
    for start in range(0, len(left), batch):
        some = left[start : start + batch]
        photos = dict(_decoded(store, some, journal, teacher.longest_side))
        if photos:
            for name, labels in zip(photos, teacher.captions(list(photos.values())), strict=True):
                journal.add(name, _identity(store, name), labels)
        shown += len(photos)
        if progress is not None:
            progress(len(names) - len(left) + start + len(some), len(names))
    return shown


def _is_known(store: PhotoStore, name: str, journal: LabelJournal) -> bool:
    identity = _identity(store, name)
    return journal.labels(name, identity) is not None or journal.error(name, identity) is not None


def _identity(store: PhotoStore, name: str) -> str:
    return str(store.place(name).identity)


def _decoded(
    store: PhotoStore, names: Sequence[str], journal: LabelJournal, longest: int | None
) -> Iterator[tuple[str, Image.Image]]:
    for name in names:
        try:
            pixels = decode_photo(store.read(name), name)
        except (PhotoError, DataError) as error:
            journal.add_error(name, _identity(store, name), str(error.found or error.what))
            continue
        image = Image.fromarray(pixels)
        if longest is not None:
            image.thumbnail((longest, longest))
        yield name, image


def _labels(
    store: PhotoStore, names: Sequence[str], journal: LabelJournal, book: LeftOutBook
) -> Iterator[tuple[str, Label]]:
    """Yield every caption with its photo; unreadable photos are recorded."""
    for name in names:
        identity = _identity(store, name)
        if (why := journal.error(name, identity)) is not None:
            book.add("photos that cannot be read", f"{name}: {why}")
            continue
        for label in journal.labels(name, identity) or ():
            yield name, label


def _chosen(
    found: Iterator[tuple[str, Label]], settings: LabelSettings, book: LeftOutBook, where: str
) -> dict[str, list[Label]]:
    """Return the captions that are kept, by photo."""
    passed: list[tuple[str, Label]] = []
    seen: set[tuple[str, str]] = set()
    for name, label in found:
        if (name, label.text) in seen:
            book.add("captions that a photo has already", name)
        elif (why := settings.filters.refusal(label)) is not None:
            book.add(why, f"{name}: {label.text}")
        else:
            passed.append((name, label))
        seen.add((name, label.text))
    least = sorted((label.log_probability for _, label in passed), reverse=True)[: round(settings.keep * len(passed))]
    kept: dict[str, list[Label]] = {}
    for name, label in passed:
        if least and label.log_probability >= least[-1]:
            kept.setdefault(name, []).append(label)
        else:
            book.add(f"captions that are not among the most confident {settings.keep:.0%}", f"{name}: {label.text}")
    if not kept:
        reasons = "; ".join(map(str, book.entries()))
        raise DataError(
            "no caption passes the filters",
            where=where,
            expected="at least one caption",
            found=reasons or "none",
            hint="captions of a model that fits your photos, or wider limits",
        )
    return kept


def _write(
    out: Path,
    name: str,
    store: PhotoStore,
    captions: Mapping[str, Sequence[Mapping[str, Any]]],
    splits: Mapping[str, str],
    facts: Mapping[str, Any],
    *,
    link: bool,
) -> None:
    entries, sentence = [], 0
    for number, (photo, own) in enumerate(captions.items()):
        path = PurePosixPath(PHOTOS, photo)
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        place = store.place(photo)
        if link and place.path.name == path.name:
            target.symlink_to(place.path.resolve())
        else:
            target.write_bytes(store.read(photo))
        sentences = [
            {"raw": one["raw"], "tokens": words(one["raw"]), "imgid": number, "sentid": sentence + at, **one}
            for at, one in enumerate(own)
        ]
        entries.append(
            {
                "imgid": number,
                "filepath": path.parent.as_posix(),
                "filename": path.name,
                "split": splits[photo],
                "sentids": [one["sentid"] for one in sentences],
                "sentences": sentences,
            }
        )
        sentence += len(own)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "photos"
    document = {"dataset": name, "labelled_by": dict(facts), "images": entries}
    text = json.dumps(document, ensure_ascii=False)
    (out / f"dataset_{plain}.json").write_text(text + "\n", encoding="utf-8")
