"""The data sets of a run: its own folder, and further sources with a weight each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from capprune.config.data import DataConfig, SourceConfig
from capprune.data.captions import CaptionedPhoto, CaptionSet, load_caption_set
from capprune_runtime.errors import DataError


@dataclass(frozen=True)
class Source:
    """One data set of a run.

    Attributes:
        folder: The data folder.
        prefix: Prefix that distinguishes its photos from those of other sources; empty for the run's own folder.
        captions: All its photos with captions.
        weight: Mean number of uses of a training photo in an epoch.
        confident_share: Share of the training photos that is used, the most confident first.
        by_confidence: Whether a photo's weight is multiplied by its confidence, divided by the mean.
        kind: The captions that are used: "all", those by people ("human"), or "generated" ones.
    """

    folder: Path
    prefix: str
    captions: CaptionSet
    weight: float
    confident_share: float = 1.0
    by_confidence: bool = False
    kind: str = "all"

    def train(self, limit: int | None) -> tuple[tuple[CaptionedPhoto, ...], tuple[float, ...]]:
        """Return the training photos that are used, and their weights.

        Args:
            limit: Use only the first photos of the split.

        Raises:
            DataError: The split is empty, or a photo has no confidence though the config asks for it.
        """
        photos = self.captions.split("train")[:limit]
        if self.confident_share == 1 and not self.by_confidence:
            return photos, (self.weight,) * len(photos)
        confidence = {photo.name: _confidence(photo, self.folder) for photo in photos}
        ranked = sorted(photos, key=lambda photo: -confidence[photo.name])
        used = {photo.name for photo in ranked[: max(1, round(len(photos) * self.confident_share))]}
        kept = tuple(photo for photo in photos if photo.name in used)
        if not self.by_confidence:
            return kept, (self.weight,) * len(kept)
        mean = sum(confidence[photo.name] for photo in kept) / len(kept)
        if mean == 0:
            raise DataError("all captions have a confidence of 0", where=self.folder, expected="a positive one")
        return kept, tuple(self.weight * confidence[photo.name] / mean for photo in kept)

    def named(self, photo: CaptionedPhoto) -> CaptionedPhoto:
        """Return a photo under its name in the run, which is unique among all sources."""
        return replace(photo, name=f"{self.prefix}{photo.name}")

    def note(self, photos: Sequence[CaptionedPhoto], weights: Sequence[float]) -> str:
        """Return a line for the user: the number of training photos and their uses in an epoch."""
        total = len(self.captions.split("train"))
        chosen = f"{len(photos):,}" if len(photos) == total else f"{len(photos):,} of {total:,}"
        kind = "" if self.kind == "all" else f", {self.kind} captions"
        return f"{self.folder.name}{kind}: {chosen} training photos, used {sum(weights):,.0f} times in an epoch"


def load_sources(data: DataConfig) -> tuple[Source, ...]:
    """Read the captions of the run's folder and of all its sources.

    Args:
        data: The keys under `data`.

    Returns:
        The folder first, then the sources in the order of the config.

    Raises:
        UsageError: A folder does not exist, or its layout is unknown.
        DataError: A captions file is broken, or names of photos in the folder look like those of a source.
    """
    own = Source(data.folder, "", load_caption_set(data.folder), data.weight)
    found = [own, *(_source(one, number, data) for number, one in enumerate(data.sources))]
    for source in found[1:]:
        clash = next((photo.name for photo in own.captions.photos if photo.name.startswith(source.prefix)), None)
        if clash is not None:
            raise DataError(
                "photos of the data folder cannot be distinguished from those of a source",
                where=data.folder / clash,
                expected=f"no folder {source.prefix} inside",
                hint=f"rename one of the folders {source.folder.name}",
            )
    return tuple(found)


def _source(source: SourceConfig, number: int, data: DataConfig) -> Source:
    names = [one.folder.name for one in data.sources[: number + 1]]
    times = names.count(names[-1])
    prefix = f"{names[-1]}/" if times == 1 else f"{names[-1]}-{times}/"
    captions, folder = _chosen(load_caption_set(source.folder), source), source.folder
    return Source(
        folder, prefix, captions, source.weight, source.confident_share, source.by_confidence, source.captions
    )


def _chosen(captions: CaptionSet, source: SourceConfig) -> CaptionSet:
    """Return the photos with captions by people, or with generated ones, as the config asks for."""
    if source.captions == "all":
        return captions
    human = source.captions == "human"
    photos = tuple(photo for photo in captions.photos if (photo.confidence is None) == human)
    if not photos:
        found = "all captions have one" if human else "no captions have one"
        expected = f"photos {'without' if human else 'with'} `confidence`, for captions: {source.captions}"
        hint = "leave out `captions` for this source"
        raise DataError("no photo is left of a source", where=source.folder, expected=expected, found=found, hint=hint)
    return replace(captions, photos=photos, labelled_by=None if human else captions.labelled_by)


def _confidence(photo: CaptionedPhoto, folder: Path) -> float:
    if photo.confidence is None:
        raise DataError(
            "a photo has no confidence",
            where=folder / photo.name,
            expected="captions with `confidence`, as from `capprune label`",
            hint="leave out confident_share and by_confidence for this source",
        )
    return photo.confidence
