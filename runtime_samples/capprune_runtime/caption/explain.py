"""A picture of where a model looked for each of its words."""

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

TILE = 224  # pixels, a side
LINE = 26  # pixels, under each tile for its word
ACROSS = 4  # tiles in a row
LONGEST_NAME = 200  # bytes of a picture's name, below what file systems take
MARGIN = 6
MARK = ("Software", EXPLANATION)  # in every picture, so that only such files are replaced
DARKEST = 0.25  # of the photo's light, where the model did not look


def explanation_places(folder: Path, photos: Sequence[Path]) -> dict[Path, Path]:
    """A picture's path for each photo, no two the same: `x.png`, or `a_x.png` and `b_x.png` for a/x.jpg and b/x.jpg.

    Args:
        folder: Of the pictures.
        photos: Their paths as given.

    Raises:
        UsageError: A picture would take the place of a file that is no picture of an earlier run.
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
    """The photo's own name, short enough for a file and printable."""
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
    """The photo of a look as an explanation shows it, (TILE, TILE, 3) uint8 RGB."""
    if look.photo.shape[:2] == (TILE, TILE):
        return look.photo
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhotoWarning)  # the look has it
        return read_photo(look.content, TILE, look.name)


def write_explanation(path: Path, photo: NDArray[np.uint8], caption: Caption) -> None:
    """Draw the photo once whole and once for each word, lit where the model looked; see `explanation`.

    Args:
        path: The picture to write.
        photo: (S, S, 3) uint8 RGB, such as `read_photo` gives it for `TILE`.
        caption: What was said of it.

    Raises:
        CapPruneError: If the file cannot be written.
    """
    data, mark = io.BytesIO(), PngInfo()
    mark.add_text(*MARK)
    explanation(Image.fromarray(photo), caption).save(data, "PNG", pnginfo=mark)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data.getvalue())


def explanation(photo: Image.Image, caption: Caption) -> Image.Image:
    """Tiles of a photo, squashed to a square as the model sees it.

    Args:
        photo: Upright, RGB.
        caption: With an attention `(T, R)` of which R is a square.

    Raises:
        UsageError: The model has no attention to show.
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
    """Return the error of a caption whose model does not show where it looked."""
    return UsageError(
        "this model has no attention to show", where="--explain", hint="choose a model family with attention"
    )


def require_explainable(manifest: Manifest) -> None:
    """Check that a bundle's model can be explained.

    Raises:
        UsageError: It has no attention to show, or sees region features and no photo to draw it on.
    """
    if manifest.interface.regions is None:
        raise without_attention()
    if isinstance(manifest.preprocessing, RegionsSection):
        raise UsageError(
            "this model sees features of regions: there is no photo to draw its attention on", where="--explain"
        )


def lit(square: Image.Image, attention: NDArray[np.float32]) -> Image.Image:
    """A tile with its light dimmed to `DARKEST` where attention `(R,)` is least."""
    side = math.isqrt(len(attention))
    grid = attention[: side * side].reshape(side, side)
    spread = float(grid.max() - grid.min())
    light = (grid - grid.min()) / spread if spread > 0 else np.ones_like(grid)
    mask = Image.fromarray((255 * (DARKEST + (1 - DARKEST) * light)).astype(np.uint8))
    mask = mask.resize(square.size, Image.Resampling.BICUBIC)
    return Image.composite(square, Image.new("RGB", square.size, "black"), mask)
