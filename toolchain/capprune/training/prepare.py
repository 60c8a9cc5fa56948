"""Prepares the loop's inputs from a config: captions as ids, cached features or pixels, the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from capprune.config.data import DataConfig
from capprune.config.run import RunConfig
from capprune.data.cache_folder import default_cache as default_cache
from capprune.data.captions import CaptionedPhoto
from capprune.data.features import Features, cached_features, cached_pixels
from capprune.data.inputs import region_store
from capprune.data.left_out import LeftOut
from capprune.data.photos import PhotoStore, open_photos
from capprune.data.regions import RegionTable
from capprune.data.sources import Source, load_sources
from capprune.data.views import WHOLE, View
from capprune.data.vocabulary import CaptionTokens
from capprune.data.words import require_readable, words
from capprune.models.caption_model import CPU, BlockExtractor, FeatureExtractor, GridEncoder
from capprune.training.caption_tokens import caption_tokens, token_notes
from capprune.training.encoder import ChosenRows, InputTable
from capprune.training.joined_tables import joined
from capprune.training.launch import Place
from capprune.training.outcome import Split
from capprune.training.run import read_run
from capprune.training.shard_data import read_shards
from capprune.training.start import check_start, start_network
from capprune.training.teachers import teachers_eyes
from capprune_runtime.bundle.preprocessing import REGIONS
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import ConfigError, DataError

SIDES = frozenset({"left", "right"})  # words that are wrong in a mirror
MOST_LICENCE = 200  # characters, in a manifest
CHECKED_TOGETHER = 64  # photos whose region features are in memory at the same time

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]  # from a label to a progress bar


@dataclass(frozen=True)
class Prepared:
    """The data of a run.

    Attributes:
        train: The training photos.
        validation: The validation photos, which decide the best epoch.
        validation_photos: The validation photos with their human captions.
        vocabulary: Vocabulary of the training captions.
        notes: Lines for the user about data that was left out, made, or taken from a cache.
        subwords: Content of the sentencepiece model, if tokens are subwords.
        licence: Terms of the data for every bundle, including the teacher of generated captions.
        skipped: Returns a line about photos that were skipped during training; None if there were none.
    """

    train: Split
    validation: Split
    validation_photos: Sequence[CaptionedPhoto]
    vocabulary: Vocabulary
    notes: tuple[str, ...] = ()
    subwords: bytes | None = None
    licence: str = ""
    skipped: Callable[[], str | None] = lambda: None


def prepare(
    config: RunConfig, *, cache: Path, bar: Bar, device: torch.device = CPU, place: Place | None = None
) -> Prepared:
    """Read captions, build the vocabulary, and compute the features that are not cached (pixels for a trained encoder).

    Args:
        config: The run's config.
        cache: Folder of all caches.
        bar: Makes a progress bar with a label.
        device: Device that computes the features.
        place: Position of this process. From shards it reads the photos of its own share of each batch.

    Raises:
        UsageError: The data folder does not exist.
        DataError: A split is empty, captions name missing photos, or a photo cannot be read.
    """
    if config.data.shards is not None:
        return _prepare_shards(config, cache, bar, device, place or Place())
    sources = load_sources(config.data)
    train, validation, notes = _chosen(config, sources)
    tokens = caption_tokens(config, texts := _texts(train))
    check_start(config, tokens.vocabulary)
    notes += token_notes(tokens, texts, config.data)
    eyes = _extractor(config, device), teachers_eyes(config.training.distillation.teachers, device)
    read = _Reader(config, cache, bar, notes, *eyes)
    learned, checked = read.all(train, "train", tokens), read.all(validation, "val", tokens)
    humans = [photo for part in checked.parts for photo in part.photos]
    model = None if tokens.subwords is None else tokens.subwords.model
    terms = _terms(config, sources)
    return Prepared(
        learned.split, checked.split, humans, tokens.vocabulary, notes=tuple(notes), subwords=model, licence=terms
    )


def vocabulary_and_licence(config: RunConfig) -> tuple[Vocabulary, str]:
    """Return the vocabulary and the terms that `prepare` would return, from the captions alone.

    Raises:
        UsageError: The data folder does not exist.
        DataError: A split is empty, or a captions file is broken.
    """
    sources = load_sources(config.data)
    train, _, _ = _chosen(config, sources)
    return caption_tokens(config, _texts(train)).vocabulary, _terms(config, sources)


def _texts(train: Sequence[_Part]) -> list[str]:
    return [text for part in train if part.view.whole for text in part.texts()]


def _terms(config: RunConfig, sources: Sequence[Source]) -> str:
    licence = config.data.licence
    for source in sources:
        licence = _licence(licence, source.captions.labelled_by)
    return licence


def _prepare_shards(config: RunConfig, cache: Path, bar: Bar, device: torch.device, place: Place) -> Prepared:
    """Return the data of a run that reads photos from shards during training."""
    extractor, teachers = _extractor(config, device), teachers_eyes(config.training.distillation.teachers, device)
    found = read_shards(config, cache=cache, bar=bar, extractor=extractor, teachers=teachers, place=place)
    train, validation = found.train, found.validation
    return Prepared(
        Split(train.names, train.features, train.captions, train.taught, found.batches),
        Split(validation.names, validation.features, validation.captions),
        found.validation_photos,
        found.tokens.vocabulary,
        notes=found.notes,
        subwords=None if found.tokens.subwords is None else found.tokens.subwords.model,
        licence=_licence(config.data.licence, found.labelled_by),
        skipped=found.skipped.note,
    )


@dataclass(frozen=True)
class _Part:
    """The photos of one source in a split, in one view, with their names and weights there."""

    source: Source
    photos: Sequence[CaptionedPhoto]
    weights: Sequence[float]
    view: View = WHOLE

    def texts(self) -> list[str]:
        return [text for photo in self.photos for text in photo.captions]

    def only(self, places: Sequence[int]) -> _Part:
        """Return some of the photos."""
        photos, weights = [self.photos[place] for place in places], [self.weights[place] for place in places]
        return replace(self, photos=photos, weights=weights)


@dataclass(frozen=True)
class _Read:
    """A split as the loop uses it, and its parts without the photos that were skipped."""

    split: Split
    parts: Sequence[_Part]


def _chosen(config: RunConfig, sources: Sequence[Source]) -> tuple[list[_Part], list[_Part], list[str]]:
    """Return the parts of the training and of the validation photos, and notes about what was left out."""
    train: list[_Part] = []
    validation: list[_Part] = []
    notes: list[str] = []
    for source in sources:
        notes += source.captions.notes()
        part = _Part(source, *source.train(config.data.limit))
        if len(sources) > 1 or config.data.weight != 1:
            notes.append(source.note(part.photos, part.weights))
        human: Sequence[CaptionedPhoto] = ()
        if source is sources[0] or "val" in source.captions.splits:
            human = source.captions.split("val")[: config.data.limit][: config.training.validation_photos]
        train += _views(part, config.data, notes)
        validation.append(_Part(source, human, (1.0,) * len(human)))
        require_readable([*part.texts(), *validation[-1].texts()], source.folder)
    return train, [part for part in validation if part.photos], notes


def _views(part: _Part, data: DataConfig, notes: list[str]) -> list[_Part]:
    """Return the part in all views, each equally often. A photo whose captions name a side is not mirrored."""
    sides = [not data.flip or any(SIDES.intersection(words(text)) for text in one.captions) for one in part.photos]
    shares = [(1 if side else 2) * (1 + data.crops) for side in sides]
    part = replace(part, weights=[weight / share for weight, share in zip(part.weights, shares, strict=True)])
    both = [place for place, side in enumerate(sides) if not side]
    if data.flip:
        notes.append(
            f"{part.source.prefix}train: {len(both):,} of {len(sides):,} photos are mirrored too; captions of the others "
            f"say {' or '.join(sorted(SIDES))}"
        )
    parts = [replace(part, view=View(number)) for number in range(1 + data.crops)]
    turned = [replace(one.only(both), view=View(one.view.part, mirrored=True)) for one in parts if both]
    return [*parts, *turned]


@dataclass(frozen=True)
class _Reader:
    """Reads the model's input of the parts of a split, through the caches."""

    config: RunConfig
    cache: Path
    bar: Bar
    notes: list[str]
    extractor: FeatureExtractor | BlockExtractor | None
    teachers: Sequence[FeatureExtractor]

    def all(self, parts: Sequence[_Part], split: str, tokens: CaptionTokens) -> _Read:
        """Return a split with the photos of all its parts."""
        found = [self._one(part, split) for part in parts]
        kept = [part for part, _, _ in found]
        photos = [part.source.named(photo) for part in kept for photo in part.photos]
        weights = [weight for part in kept for weight in part.weights]
        made = Split(
            [photo.name for photo in photos],
            joined([table for _, table, _ in found]),
            _ids(photos, tokens, self.config.data),
            _joined_each([tables for _, _, tables in found]),
            weights=None if set(weights) == {1.0} else weights,
            objects=[photo.objects for photo in photos],
        )
        return _Read(made, [replace(part, photos=[*map(part.source.named, part.photos)]) for part in kept])

    def _one(self, part: _Part, split: str) -> tuple[_Part, InputTable, Sequence[InputTable]]:
        config, names = self.config, [photo.name for photo in part.photos]
        notes = self.notes if part.view.whole else []  # the same photos as before
        if config.encoder.name == REGIONS:
            return part, _regions(config, part.source.folder, names), ()
        skip = config.data.broken == "skip"
        with open_photos(part.source.folder) as store:
            if skip and (missing := set(store.missing(names))):
                notes.append(f"note: {LeftOut('skipped photos that do not exist', tuple(sorted(missing)))}")
                part = part.only([place for place, name in enumerate(names) if name not in missing])
                names = [photo.name for photo in part.photos]
            label = ", ".join(word for word in (f"{part.source.prefix}{split}", part.view.label) if word)
            with self.bar(f"{'features' if self.extractor else 'pixels'} of {label}") as tell:
                seen = _Seen(store, self.cache, tell, skip, part.view)
                eyes = {eye.key: eye for eye in self.teachers} if split == "train" else {}
                size = config.encoder.size
                shown = seen.pixels(names, size) if self.extractor is None else seen.by(self.extractor, names)
                taught = {key: seen.by(eye, names) for key, eye in eyes.items()}
        if shown.from_cache:
            self.notes.append(f"{label}: {shown.from_cache:,} of {len(names):,} photos from the cache {self.cache}")
        good = _good(part.photos, [shown, *taught.values()], notes, part.source.folder)
        whole = len(good) == len(part.photos)
        tables = {key: table if whole else ChosenRows(table, good) for key, table in taught.items()}
        each = [tables[eye.key] for eye in self.teachers if tables]
        return (part, shown, each) if whole else (part.only(good), ChosenRows(shown, good), each)


def _joined_each(parts: Sequence[Sequence[InputTable]]) -> tuple[InputTable, ...]:
    """Return for each teacher one table for all parts of a split. Equal teachers share theirs."""
    made: dict[tuple[int, ...], InputTable] = {}
    columns = list(zip(*parts, strict=True))
    return tuple(made.setdefault(tuple(map(id, tables)), joined(tables)) for tables in columns)


@dataclass(frozen=True)
class _Seen:
    """The caches of the photos of a split."""

    store: PhotoStore
    cache: Path
    tell: Callable[[int, int], None]
    skip: bool
    view: View

    def pixels(self, names: Sequence[str], size: int) -> Features:
        return cached_pixels(
            self.store,
            names,
            size=size,
            cache=self.cache,
            progress=self.tell,
            skip_broken=self.skip,
            view=self.view,
        )

    def by(self, extractor: FeatureExtractor | BlockExtractor, names: Sequence[str]) -> Features:
        return cached_features(
            self.store,
            names,
            encoder=extractor,
            cache=self.cache,
            batch=4,
            progress=self.tell,
            skip_broken=self.skip,
            view=self.view,
        )


def _good(photos: Sequence[CaptionedPhoto], seen: Sequence[Features], notes: list[str], folder: Path) -> list[int]:
    """Return the positions of readable photos. The others are counted and named in the notes."""
    broken = {place: reason for one in seen for place, reason in one.broken.items()}
    if broken:
        names = tuple(f"{photos[place].name}: {reason}" for place, reason in sorted(broken.items()))
        notes.append(f"note: {LeftOut('skipped photos that cannot be read', names)}")
    good = [place for place in range(len(photos)) if place not in broken]
    if not good:
        raise DataError("no photo of a split can be read", where=folder, expected="at least one")
    return good


def _licence(own: str, labelled_by: str | None) -> str:
    """Return the terms of the data, and of the model that generated its captions."""
    if labelled_by is None or labelled_by in own:
        return own
    credit = f"captions by {labelled_by}"
    room = max(MOST_LICENCE - len(credit) - 2, MOST_LICENCE // 2)  # a long credit is truncated before the own terms are
    return f"{own[:room]}; {credit}"[:MOST_LICENCE]


def _regions(config: RunConfig, folder: Path, names: Sequence[str]) -> RegionTable:
    """Return the region features of photos. The size of every file is checked here, before training."""
    for teacher in config.training.distillation.teachers:
        if (other := read_run(teacher).config.encoder.name) != REGIONS:
            raise ConfigError(
                "a teacher of a run on region features sees region features too",
                where="training.distillation.teacher",
                expected=f"a run with encoder.name {REGIONS}",
                found=f"{teacher}, encoder.name {other}",
            )
    store = region_store(folder)
    store.require(names)
    table = RegionTable(store, names, regions=config.encoder.regions, channels=config.encoder.channels)
    for start in range(0, len(names), CHECKED_TOGETHER):
        table[range(start, min(start + CHECKED_TOGETHER, len(names)))]
    return table


def _extractor(config: RunConfig, device: torch.device) -> FeatureExtractor | BlockExtractor | None:
    """Return what computes cached values: features of a frozen encoder, else the output of frozen blocks, if any."""
    if config.encoder.name == REGIONS:
        return None
    if config.encoder.train != "frozen" and not config.encoder.frozen_blocks:
        return None
    encoder = GridEncoder(config.encoder, start_network(config))
    kind = FeatureExtractor if config.encoder.train == "frozen" else BlockExtractor
    return kind(encoder, device)


def _ids(photos: Sequence[CaptionedPhoto], tokens: CaptionTokens, settings: DataConfig) -> list[list[tuple[int, ...]]]:
    return [[tokens.encode(text, settings.maximum_tokens) for text in photo.captions] for photo in photos]
