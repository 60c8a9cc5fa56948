"""Photos with each model's caption, spread evenly over the split and chosen before captioning."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from capprune.data.captions import load_caption_set
from capprune.data.photos import open_photos
from capprune.reporting.contents import PhotoRow
from capprune.reporting.sources import Sources
from capprune.reporting.words import side_by_side
from capprune.trained import TrainedCaptioner
from capprune.training.run import LoadedRun
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.proof import read_golden
from capprune_runtime.photo import decode_photo, resize

SIDE = 360  # maximum width and height of a photo in pixels
JPEG_QUALITY = 82

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """A photo to show: its name, its pixels (H, W, 3), and a human caption."""

    name: str
    pixels: Pixels
    people: str | None


def photos_of_split(folder: Path, split: str, count: int) -> list[Shown]:
    """Return `count` photos, spread evenly over a split.

    Raises:
        DataError: The folder cannot be read, or the split is empty.
        PhotoError: A photo cannot be read.
    """
    photos = load_caption_set(folder).split(split)
    step = max(len(photos) // count, 1)
    chosen = photos[::step][:count]
    with open_photos(folder) as store:
        return [
            Shown(photo.name, decode_photo(store.read(photo.name), photo.name), photo.captions[0]) for photo in chosen
        ]


def golden_photos(sources: Sources, count: int) -> list[Shown]:
    """Return the bundle's golden photos; none without a bundle."""
    if sources.bundle is None:
        return []
    return [Shown(one.name.rpartition("/")[2], one.photo, None) for one in read_golden(sources.bundle)[:count]]


def photo_rows(sources: Sources, photos: Sequence[Shown], beam: int) -> tuple[PhotoRow, ...]:
    """Return each photo with the captions of the dense model, the pruned one, the bundle here, and the bundle on a device.

    Args:
        sources: The models that caption the photos.
        photos: The photos to show.
        beam: Beam width.
    """
    columns: list[tuple[str, Mapping[str, str]]] = []
    for model, run in (("dense, torch", sources.dense), (_name(sources.run), sources.run)):
        if run is not None:
            columns.append((model, _trained(run, photos, beam)))
    if sources.bundle is not None:
        captioner = Captioner(sources.bundle)
        size = sources.bundle.manifest.photo_size
        columns.append(
            (
                f"exported, {captioner.runtime}",
                {one.name: captioner.caption(resize(one.pixels, size), beam).text for one in photos},
            )
        )
    for validated in sources.validated:
        where = validated.measurement.environment
        said = {one.photo: one.caption for one in validated.measurement.captions}
        elsewhere = where.model is not None or where.emulated or where.stand_in is not None
        if elsewhere and validated.measurement.settings.beam == beam and any(one.name in said for one in photos):
            columns.append((f"on {where.model or where.machine}", said))
    return tuple(
        PhotoRow(
            one.name,
            _data_uri(one.pixels),
            side_by_side([(model, captions[one.name]) for model, captions in columns if one.name in captions]),
            one.people,
        )
        for one in photos
    )


def _name(run: LoadedRun | None) -> str:
    return "pruned, torch" if run is not None and run.masks else "dense, torch"


def _trained(run: LoadedRun, photos: Sequence[Shown], beam: int) -> dict[str, str]:
    captioner = TrainedCaptioner(run)
    size = run.config.encoder.size
    return {one.name: captioner.caption([resize(one.pixels, size)], beam)[0].caption for one in photos}


def _data_uri(pixels: Pixels) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
