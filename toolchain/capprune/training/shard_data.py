"""Prepares the loop's inputs from shards; see `capprune.training.prepare` for data in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from capprune.config.run import RunConfig
from capprune.data.captions import CaptionedPhoto
from capprune.data.features import cached_features, cached_pixels
from capprune.data.shards.place import ShardPlace
from capprune.data.shards.reader import ShardPhotos, ShardTexts, SomePhotos
from capprune.data.vocabulary import CaptionTokens
from capprune.data.words import require_readable
from capprune.models.caption_model import FeatureExtractor
from capprune.training.caption_tokens import caption_tokens, token_notes
from capprune.training.encoder import ChosenRows, InputTable
from capprune.training.launch import Place
from capprune.training.streamed import (
    TOGETHER,
    Extractor,
    ShardBatches,
    ShardCaptions,
    ShardNames,
    ShardTable,
    Skipped,
    require_encoder,
)
from capprune_runtime.bundle.preprocessing import REGIONS
from capprune_runtime.errors import ConfigError

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]  # from a label to a progress bar


@dataclass(frozen=True)
class ShardData:
    """The data of a run from shards.

    Attributes:
        train: Training photos: names, features, captions, and the teachers' features if they differ.
        batches: The batches of every epoch.
        validation: Names, features and captions of the validation photos.
        validation_photos: The validation photos with their human captions.
        tokens: Tokens of the captions.
        notes: Lines for the user.
        labelled_by: The model that generated the captions.
        skipped: Photos that were skipped so far.
    """

    train: ShardRows
    batches: ShardBatches
    validation: ShardRows
    validation_photos: Sequence[CaptionedPhoto]
    tokens: CaptionTokens
    notes: tuple[str, ...]
    labelled_by: str | None
    skipped: Skipped


@dataclass(frozen=True)
class ShardRows:
    """Names, features and captions of a split's photos, in order."""

    names: Sequence[str]
    features: InputTable
    captions: Sequence[Sequence[tuple[int, ...]]]
    taught: Sequence[InputTable] = ()


def read_shards(
    config: RunConfig,
    *,
    cache: Path,
    bar: Bar,
    extractor: Extractor | None,
    teachers: Sequence[FeatureExtractor],
    place: Place,
) -> ShardData:
    """Open the shards of a config, and build the vocabulary from their rows.

    Args:
        config: A config with `data.shards`.
        cache: Folder of all caches.
        bar: Makes a progress bar with a label.
        extractor: Computes the run's features; None if its encoder is trained from the first block on.
        teachers: Compute the teachers' features.
        place: Position of this process.

    Raises:
        ConfigError: The run needs region features, or other features than the shards hold.
        DataError: A shard is missing or altered.
    """
    data, skipped = config.data, Skipped()
    assert data.shards is not None
    if config.encoder.name == REGIONS:
        raise ConfigError("region features are read from a folder, not from shards", where="data.shards")
    index = (source := ShardPlace(data.shards, cache)).index
    if index.encoder is not None:
        require_encoder(index.encoder, extractor, data.shards)
        for teacher in teachers:
            require_encoder(index.encoder, teacher, data.shards)
    train = ShardPhotos(source, index.of_split("train"), data.limit)
    fewest = min(config.training.validation_photos, data.limit or config.training.validation_photos)
    validation = ShardPhotos(source, index.of_split("val"), fewest)
    texts = ShardTexts(train)
    require_readable(texts, data.folder)
    tokens = caption_tokens(config, texts)

    def table(photos: ShardPhotos, by: Extractor | None) -> ShardTable:
        if index.encoder is not None:
            return ShardTable(photos, size=None, stored=index.encoder.shape)
        return ShardTable(photos, size=config.encoder.size if by is None else by.size, extractor=by)

    encode = partial(tokens.encode, maximum_tokens=data.maximum_tokens)
    captions = ShardCaptions(train, encode)
    batches = ShardBatches(
        train,
        captions,
        shown := table(train, extractor),
        photos_per_batch=config.training.photos_per_batch,
        shuffle_photos=data.shuffle_photos,
        seed=config.training.seed,
        skipped=skipped if data.broken == "skip" else None,
        place=place,
        parts=config.training.accumulate,
    )
    shown_val, human = _validation(config, validation, cache, bar, extractor, table)
    ids = [[encode(text) for text in photo.captions] for photo in human]
    return ShardData(
        ShardRows(ShardNames(train), shown, captions, _taught(teachers, extractor, shown, partial(table, train))),
        batches,
        ShardRows([photo.name for photo in human], shown_val, ids),
        human,
        tokens,
        (f"reading {len(train):,} photos from {len(train.shards):,} shards", *token_notes(tokens, texts, data)),
        index.labelled_by,
        skipped,
    )


def _taught(
    teachers: Sequence[FeatureExtractor],
    extractor: Extractor | None,
    shown: InputTable,
    table: Callable[[FeatureExtractor], InputTable],
) -> tuple[InputTable, ...]:
    """Return the features of each teacher: the run's own table where they are the same."""
    others = {one.key: one for one in teachers if not same_features(one, extractor)}
    tables = {key: table(one) for key, one in others.items()}
    return tuple(tables.get(one.key, shown) for one in teachers)


def same_features(teacher: FeatureExtractor, extractor: Extractor | None) -> bool:
    """Return whether a teacher has the same features as the run itself."""
    return extractor is not None and teacher.key == extractor.key


def _validation(
    config: RunConfig,
    photos: ShardPhotos,
    cache: Path,
    bar: Bar,
    extractor: Extractor | None,
    table: Callable[[ShardPhotos, Extractor | None], ShardTable],
) -> tuple[InputTable, list[CaptionedPhoto]]:
    """Return the validation photos. They are a few hundred, so features or pixels are cached as for a data folder."""
    some, skip = SomePhotos(photos), config.data.broken == "skip"
    human = [CaptionedPhoto(name, "val", some.captions(name)) for name in some.names()]
    if photos.place.index.encoder is not None:
        return table(photos, extractor), human
    with bar(f"{'features' if extractor else 'pixels'} of val") as tell:
        if extractor is None:
            size = config.encoder.size
            shown = cached_pixels(some, some.names(), size=size, cache=cache, progress=tell, skip_broken=skip)
        else:
            shown = cached_features(
                some, some.names(), encoder=extractor, cache=cache, batch=TOGETHER, progress=tell, skip_broken=skip
            )
    if not shown.broken:
        return shown, human
    good = [place for place in range(len(human)) if place not in shown.broken]
    return ChosenRows(shown, good), [human[place] for place in good]
