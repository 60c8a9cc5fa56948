"""Captions of a split from cached features, and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from capprune.config.data import DataConfig
from capprune.data.captions import CaptionedPhoto, load_caption_set
from capprune.data.features import Features, cached_features
from capprune.data.photos import open_photos
from capprune.metrics.health import caption_health
from capprune.metrics.intervals import bootstrap_mean
from capprune.metrics.scores import chosen_tokenizer, score
from capprune.models.caption_model import FeatureExtractor, GridEncoder
from capprune.models.family import Tensors
from capprune.models.search import beam
from capprune.sweeping.forms import Arrays
from capprune.training.prepare import Bar
from capprune.training.run import LoadedRun
from capprune_runtime.errors import UsageError

BATCH = 64  # photos captioned together


@dataclass(frozen=True)
class Scored:
    """Scores of a set of captions.

    Attributes:
        quality: The metrics.
        interval: Interval of CIDEr-D over photos.
        health: Signs of degenerate captions.
        per_photo: CIDEr-D of each photo, in the order of the sorted names.
    """

    quality: dict[str, object]
    interval: dict[str, object]
    health: dict[str, object]
    per_photo: tuple[float, ...]


class SplitCaptions:
    """The photos on which every run of a sweep is scored.

    Args:
        data: Data section of the sweep's config; its `limit` applies here too.
        split: Split of the photos.
        tokenizer: Tokenizer of the scores; "auto" chooses one.
        cache: Folder of feature caches.
        bar: Makes a progress bar under a label.

    Raises:
        DataError: If the split is empty.
    """

    def __init__(self, data: DataConfig, split: str, tokenizer: str, cache: Path, bar: Bar) -> None:
        self.photos: Sequence[CaptionedPhoto] = load_caption_set(data.folder).split(split)[: data.limit]
        self.tokenizer = chosen_tokenizer(tokenizer, [text for photo in self.photos for text in photo.captions])
        self._folder, self._split, self._cache, self._bar = data.folder, split, cache, bar

    @property
    def names(self) -> tuple[str, ...]:
        """Sorted names of the photos, the order of the scores per photo."""
        return tuple(sorted(photo.name for photo in self.photos))

    def in_torch(self, run: LoadedRun, width: int) -> dict[str, str]:
        """Return the trained model's caption of every photo, by beam search."""
        said: dict[str, str] = {}
        limit, no_repeat = run.config.data.steps, run.config.search.no_repeat_ngram
        for names, encoded in self._encoded(run):
            with torch.inference_mode():
                found = beam(run.model.decoder, encoded, limit, width, no_repeat_ngram=no_repeat)
            said |= {name: run.vocabulary.caption(ids) for name, ids in zip(names, found.tokens, strict=True)}
        return said

    def encoded(self, run: LoadedRun) -> Iterator[tuple[str, Arrays]]:
        """Yield the outputs of `encode` for every photo: the photo's name, and the tensors by name."""
        for names, (held, first) in self._encoded(run):
            tensors = {**held, **first}
            for row, name in enumerate(names):
                yield name, {key: value[row : row + 1].numpy() for key, value in tensors.items()}

    def score(self, said: Mapping[str, str]) -> Scored:
        """Return the metrics of captions of all photos; METEOR only if Java is installed."""
        scores = score({photo.name: photo.captions for photo in self.photos}, said, tokenizer=self.tokenizer)
        interval = bootstrap_mean(scores.per_photo_cider)
        health = caption_health(said.values())
        return Scored(scores.as_json(), interval.as_json(), health.as_json(), scores.per_photo_cider)

    def _encoded(self, run: LoadedRun) -> Iterator[tuple[list[str], tuple[Tensors, Tensors]]]:
        features = self._features(run)
        names = [photo.name for photo in self.photos]
        for start in range(0, len(names), BATCH):
            some = np.arange(start, min(start + BATCH, len(names)))
            rows: Any = torch.from_numpy(features[some].astype(np.float32))
            with torch.inference_mode():
                encoded = run.model.decoder.encode(rows)
            yield [names[i] for i in some], encoded

    def _features(self, run: LoadedRun) -> Features:
        names = [photo.name for photo in self.photos]
        with open_photos(self._folder) as store, self._bar(f"features of {self._split}") as tell:
            if not isinstance(run.model.encoder, GridEncoder):
                raise UsageError(
                    "a sweep can only score models of photos", where=run.folder, found="a model of region features"
                )
            extractor = FeatureExtractor(run.model.encoder)
            return cached_features(store, names, encoder=extractor, cache=self._cache, batch=4, progress=tell)
