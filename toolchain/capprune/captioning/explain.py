"""A picture of where a model looked for each of its words."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from capprune_runtime.atomic import write_bytes
from capprune_runtime.caption.captioner import Caption
from capprune_runtime.streams import shown_name

TILE = 224  # pixels, a side
LINE = 26  # pixels, under each tile for its word
ACROSS = 4  # tiles in a row
MARGIN = 6
DARKEST = 0.25  # of the photo's light, where the model did not look


def write_explanation(path: Path, photo: NDArray[np.uint8], caption: Caption) -> None:
    """Draw the photo once whole and once for each word, lit where the model looked; see `explanation`.

    Args:
        path: The picture to write.
        photo: (S, S, 3) uint8 RGB, such as `read_photo` gives it for `TILE`.
        caption: What was said of it.

    Raises:
        CapPruneError: If the file cannot be written.
    """
    data = io.BytesIO()
    explanation(Image.fromarray(photo), caption).save(data, "PNG")
    write_bytes(path, data.getvalue())


def explanation_names(photos: Sequence[Path]) -> list[str]:
    """A file name for the explanation of each photo, in their order: no two are the same on any file system."""
    taken: set[str] = set()
    names = []
    for photo in photos:
        stem = shown_name(os.fsdecode(os.fsencode(photo.stem)[:200])) or "photo"
        stem = "stdin" if str(photo) == "-" else stem
        name, number = f"{stem}.png", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}.png"
        taken.add(name.casefold())
        names.append(name)
    return names


def explanation(photo: Image.Image, caption: Caption) -> Image.Image:
    """Tiles of a photo, squashed to a square as the model sees it.

    Args:
        photo: Upright, RGB.
        caption: With an attention `(T, R)` of which R is a square.
    """
    square = photo.resize((TILE, TILE), Image.Resampling.BILINEAR)
    words = caption.text.split()
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


def lit(square: Image.Image, attention: NDArray[np.float32]) -> Image.Image:
    """A tile with its light dimmed to `DARKEST` where attention `(R,)` is least."""
    side = math.isqrt(len(attention))
    grid = attention[: side * side].reshape(side, side)
    spread = float(grid.max() - grid.min())
    light = (grid - grid.min()) / spread if spread > 0 else np.ones_like(grid)
    mask = Image.fromarray((255 * (DARKEST + (1 - DARKEST) * light)).astype(np.uint8))
    mask = mask.resize(square.size, Image.Resampling.BICUBIC)
    return Image.composite(square, Image.new("RGB", square.size, "black"), mask)
