"""Draw a picture of a model's attention for each word of a caption."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from capprune_runtime.atomic import write_bytes
from capprune_runtime.bundle.manifest import Manifest
from capprune_runtime.bundle.preprocessing import RegionsSection
from capprune_runtime.caption.captioner import Caption
from capprune_runtime.caption.look import Look
from capprune_runtime.errors import PhotoWarning, UsageError
from capprune_runtime.photo import read_photo
from capprune_runtime.photo_folder import EXPLANATION
from capprune_runtime.streams import shown_name

TILE = 224  # pixels a side
LINE = 26  # height in pixels of the word under each tile
ACROSS = 4  # tiles in a row
LONGEST_NAME = 200  # limit of a picture's file name in bytes, below that of file systems
MARGIN = 6
MARK = ("Software", EXPLANATION)  # tag of every picture; only tagged files are replaced
DARKEST = 0.25  # brightness of the photo where the attention is least


def explanation_places(folder: Path, photos: Sequence[Path]) -> dict[Path, Path]:
    """Return a unique picture path for each photo: `x.png`, or `a_x.png` and `b_x.png` for a/x.jpg and b/x.jpg.

    Args:
        folder: Folder of the pictures.
        photos: Paths of the photos as given.

    Raises:
        UsageError: A picture would replace a file that is not a picture of an earlier run.
    """
    names: dict[Path, str] = {photo: _stem(photo) for photo in photos}
    for longer in (_path_as_name, lambda photo: f"{_path_as_name(photo)}{photo.suffix}", _numbered(photos)):
        times = Counter(name.casefold() for name in names.values())
        names = {photo: name if times[name.casefold()] == 1 else longer(photo) for photo, name in names.items()}
    places = {photo: folder / f"{name}.png" for photo, name in names.items()}
    own = {photo.resolve() for photo in photos}
    for place in places.values():
        if place.exists() and (place.resolve() in own or not _is_explanation(place)):
            raise UsageError(
                "there is another file here already", where=place, hint="choose another folder for --explain"
            )
    return places


def _stem(photo: Path) -> str:
    """Return the photo's own name, printable and short enough for a file name."""
    shown = shown_name(os.fsdecode(os.fsencode(photo.stem)[:LONGEST_NAME]))
    return "stdin" if str(photo) == "-" else shown or "photo"


def _path_as_name(photo: Path) -> str:
    name = "_".join((*(part for part in photo.parent.parts if part not in ("/", "..")), _stem(photo)))
    return shown_name(os.fsdecode(os.fsencode(name)[-LONGEST_NAME:]))


def _numbered(photos: Sequence[Path]) -> Callable[[Path], str]:
    numbers = {photo: number for number, photo in enumerate(dict.fromkeys(photos), 1)}
    return lambda photo: f"{_path_as_name(photo)}-{numbers[photo]}"


def _is_explanation(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return bool(picture.info.get(MARK[0]) == MARK[1])
    except (OSError, ValueError, SyntaxError):
        return False


def tile_of(look: Look) -> NDArray[np.uint8]:
    """Return the photo of a look as shown in an explanation, (TILE, TILE, 3) uint8 RGB."""
    if look.photo.shape[:2] == (TILE, TILE):
        return look.photo
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhotoWarning)  # `look.warning` already has it
        return read_photo(look.content, TILE, look.name)


def write_explanation(path: Path, photo: NDArray[np.uint8], caption: Caption) -> None:
    """Draw the whole photo, and once more for each word, brightened by attention; see `explanation`.

    Args:
        path: The picture to write.
        photo: (S, S, 3) uint8 RGB, such as `read_photo` returns for `TILE`.
        caption: The caption of the photo.

    Raises:
        CapPruneError: The file cannot be written.
    """
    data, mark = io.BytesIO(), PngInfo()
    mark.add_text(*MARK)
    explanation(Image.fromarray(photo), caption).save(data, "PNG", pnginfo=mark)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data.getvalue())


def explanation(photo: Image.Image, caption: Caption) -> Image.Image:
    """Return an image of tiles of a photo, each squashed to a square as the model's input.

    Args:
        photo: Upright, RGB.
        caption: A caption with an attention `(T, R)`, where R is a square number.

    Raises:
        UsageError: The model has no attention.
    """
    if caption.attention is None:
        raise without_attention()
    square = photo.resize((TILE, TILE), Image.Resampling.BILINEAR)
    words = caption.shown or caption.text.split()
    tiles = [(square, "")] + [
        (lit(square, attention), word) for word, attention in zip(words, caption.attention, strict=False)
    ]
    rows = math.ceil(len(tiles) / ACROSS)
    width = ACROSS * (TILE + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, LINE + MARGIN + rows * (TILE + LINE + MARGIN)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    draw.text((MARGIN, MARGIN), caption.text, fill="black", font=font)
    for index, (tile, word) in enumerate(tiles):
        left = MARGIN + index % ACROSS * (TILE + MARGIN)
        top = LINE + MARGIN + index // ACROSS * (TILE + LINE + MARGIN)
        sheet.paste(tile, (left, top))
        draw.text((left, top + TILE + 2), word, fill="black", font=font)
    return sheet


def without_attention() -> UsageError:
    """Return the error for a caption whose model has no attention."""
    return UsageError(
        "this model has no attention to show", where="--explain", hint="choose a model family with attention"
    )


def require_explainable(manifest: Manifest) -> None:
    """Check that a bundle's captions can be explained.

    Raises:
        UsageError: The model has no attention, or takes region features, without a photo to draw on.
    """
    if manifest.interface.regions is None:
        raise without_attention()
    if isinstance(manifest.preprocessing, RegionsSection):
        raise UsageError(
            "this model sees features of regions: there is no photo to draw its attention on", where="--explain"
        )


def lit(square: Image.Image, attention: NDArray[np.float32]) -> Image.Image:
    """Return a tile dimmed to `DARKEST` where attention `(R,)` is least."""
    side = math.isqrt(len(attention))
    grid = attention[: side * side].reshape(side, side)
    spread = float(grid.max() - grid.min())
    light = (grid - grid.min()) / spread if spread > 0 else np.ones_like(grid)
    mask = Image.fromarray((255 * (DARKEST + (1 - DARKEST) * light)).astype(np.uint8))
    mask = mask.resize(square.size, Image.Resampling.BICUBIC)
    return Image.composite(square, Image.new("RGB", square.size, "black"), mask)
