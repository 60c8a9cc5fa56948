"""Drawn images that are no photos, for calibrating and measuring how a bundle recognises photos.

They are stand-ins made by code: blank areas, noise, pages of text, screens of programs, line drawings, diagrams and
textures. No real scan or screenshot is among them. An image depends only on its kind, the seed and its number. The shapes
of letters come from the font that Pillow contains.
"""

from __future__ import annotations

import io
import random
import string
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

SIZE: Final = 224  # pixels
Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
_INK: Final = (20, 20, 30)


def non_photos(count: int, seed: str, size: int = SIZE) -> dict[str, list[Pixels]]:
    """Draw images of every kind.

    Args:
        count: Images of each kind.
        seed: Other seeds give other images.
        size: Side of the images in pixels.

    Returns:
        For each kind its images, each `(size, size, 3)` uint8 RGB.
    """
    return {
        kind: [_stored(draw(f"{seed} {kind} {number}"), size, number) for number in range(count)]
        for kind, draw in KINDS.items()
    }


def _stored(pixels: Pixels, size: int, number: int) -> Pixels:
    """Return the image in the asked size; every second one went through a JPEG, so that sharp pixels are no sign."""
    image = Image.fromarray(pixels)
    if size != SIZE:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    if number % 2:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=60 + number % 36)
        image = Image.open(file).convert("RGB")
    return np.asarray(image, np.uint8)


def _colour(chance: random.Random, low: int = 0, high: int = 255) -> Colour:
    return chance.randint(low, high), chance.randint(low, high), chance.randint(low, high)


def _numbers(seed: str) -> np.random.Generator:
    return np.random.default_rng(list(seed.encode()))


def _blank(seed: str) -> Pixels:
    """One colour, or a gradient between two."""
    chance = random.Random(seed)
    grey = chance.random() < 0.4
    ends = [(value,) * 3 if grey else _colour(chance) for value in (chance.randint(0, 255), chance.randint(0, 255))]
    first, last = np.array(ends, np.float64)
    if chance.random() < 0.5:
        last = first
    place = np.linspace(0, 1, SIZE)
    share = place[:, np.newaxis] if chance.random() < 0.5 else place[np.newaxis, :]
    return np.broadcast_to(first + (last - first) * share[..., np.newaxis], (SIZE, SIZE, 3)).astype(np.uint8)


def _noise(seed: str) -> Pixels:
    """Random pixels, fine or coarse, grey or coloured."""
    chance, numbers = random.Random(seed), _numbers(seed)
    grain, channels = chance.choice((1, 2, 4, 8)), chance.choice((1, 3))
    cells = SIZE // grain
    spread = chance.uniform(15, 80)
    values = numbers.normal(chance.uniform(60, 190), spread, (cells, cells, channels)).clip(0, 255).astype(np.uint8)
    return np.repeat(np.repeat(np.broadcast_to(values, (cells, cells, 3)), grain, 0), grain, 1)


def _text(seed: str) -> Pixels:
    """A page of lines of letters."""
    chance = random.Random(seed)
    dark = chance.random() < 0.2
    paper, ink = (_colour(chance, 225, 255), _colour(chance, 0, 60)) if not dark else (_INK, _colour(chance, 180, 255))
    image = Image.new("RGB", (SIZE, SIZE), paper)
    draw = ImageDraw.Draw(image)
    height = chance.choice((8, 10, 12, 16, 24, 40))
    font = ImageFont.load_default(height)
    for line in range(chance.randint(4, 8), SIZE, int(height * 1.4)):
        if chance.random() < 0.9:
            draw.text((chance.randint(6, 12), line), _words(chance, SIZE // (height // 2 + 1)), fill=ink, font=font)
    return np.asarray(image, np.uint8)


def _words(chance: random.Random, letters: int) -> str:
    text = ""
    while len(text) < letters:
        text += "".join(chance.choices(string.ascii_lowercase, k=chance.randint(1, 9))) + " "
    return text.capitalize()[:letters]


def _screen(seed: str) -> Pixels:
    """A program's screen: a bar, a list at the side, rows, fields and buttons."""
    chance = random.Random(seed)
    dark = chance.random() < 0.3
    back, ink = (_colour(chance, 20, 50), (220, 220, 225)) if dark else (_colour(chance, 235, 255), _INK)
    image = Image.new("RGB", (SIZE, SIZE), back)
    draw, font, accent = ImageDraw.Draw(image), ImageFont.load_default(9), _colour(chance, 40, 210)
    bar, side = chance.randint(12, 28), chance.choice((0, 40, 60))
    draw.rectangle((0, 0, SIZE, bar), fill=accent)
    draw.text((6, bar // 2 - 5), _words(chance, 18), fill=(255, 255, 255), font=font)
    if side:
        draw.rectangle((0, bar, side, SIZE), fill=tuple(max(0, value - 15) for value in back))
        for line in range(bar + 8, SIZE, 16):
            draw.text((4, line), _words(chance, 7), fill=ink, font=font)
    step = chance.choice((14, 22, 34))
    for line in range(bar + 8, SIZE - step, step):
        kind = chance.random()
        if kind < 0.5:
            draw.text((side + 8, line), _words(chance, chance.randint(8, 32)), fill=ink, font=font)
        elif kind < 0.75:
            draw.rectangle((side + 8, line, SIZE - 8, line + step - 4), outline=accent)
        else:
            draw.rounded_rectangle((side + 8, line, side + 70, line + step - 3), 4, fill=accent)
    return np.asarray(image, np.uint8)


def _drawing(seed: str) -> Pixels:
    """Lines and shapes on paper."""
    chance = random.Random(seed)
    image = Image.new("RGB", (SIZE, SIZE), _colour(chance, 230, 255))
    draw = ImageDraw.Draw(image)
    filled, width = chance.random() < 0.4, chance.randint(1, 5)
    for _ in range(chance.randint(3, 14)):
        ink = _colour(chance, 0, 200) if filled else _INK
        left, top = chance.randint(0, SIZE - 40), chance.randint(0, SIZE - 40)
        box = (left, top, left + chance.randint(20, 110), top + chance.randint(20, 110))
        kind = chance.randrange(4)
        if kind == 0:
            draw.ellipse(box, fill=ink if filled else None, outline=ink, width=width)
        elif kind == 1:
            draw.rectangle(box, fill=ink if filled else None, outline=ink, width=width)
        else:
            points = [(chance.randint(0, SIZE), chance.randint(0, SIZE)) for _ in range(chance.randint(2, 6))]
            draw.line(points, fill=ink, width=width, joint="curve")
    return np.asarray(image, np.uint8)


def _diagram(seed: str) -> Pixels:
    """A bar chart, a curve, or a grid of black and white modules as in a printed code."""
    chance = random.Random(seed)
    image = Image.new("RGB", (SIZE, SIZE), (255, 255, 255))
    draw, kind, ink = ImageDraw.Draw(image), chance.randrange(3), _colour(chance, 0, 200)
    if kind == 2:
        cell = chance.choice((6, 8, 11))
        for left in range(cell * 2, SIZE - cell * 2, cell):
            for top in range(cell * 2, SIZE - cell * 2, cell):
                if chance.random() < 0.5:
                    draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=(0, 0, 0))
        return np.asarray(image, np.uint8)
    draw.line(((20, 10), (20, 200), (214, 200)), fill=_INK, width=2)
    count = chance.randint(4, 12)
    heights = [chance.randint(20, 180) for _ in range(count)]
    if kind == 0:
        for place, height in enumerate(heights):
            left = 26 + place * 186 // count
            draw.rectangle((left, 200 - height, left + 140 // count, 199), fill=ink)
    else:
        draw.line(
            [(26 + place * 186 // count, 200 - height) for place, height in enumerate(heights)], fill=ink, width=3
        )
    draw.text((40, 205), _words(chance, 24), fill=_INK, font=ImageFont.load_default(10))
    return np.asarray(image, np.uint8)


def _texture(seed: str) -> Pixels:
    """Stripes, checks or waves in two colours, with a little noise."""
    chance, numbers = random.Random(seed), _numbers(seed)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    angle, period = chance.uniform(0, np.pi), chance.uniform(6, 50)
    along = (columns * np.cos(angle) + rows * np.sin(angle)) * 2 * np.pi / period
    across = (rows * np.cos(angle) - columns * np.sin(angle)) * 2 * np.pi / period
    kind = chance.randrange(4)
    share = (
        np.sin(along),
        np.sin(along) * np.sin(across),
        np.sin(along + 2 * np.sin(across / 3)),
        np.cos(np.hypot(along, across)),
    )[kind]
    share = (share > 0) * 1.0 if chance.random() < 0.5 else share / 2 + 0.5
    first, last = np.array([_colour(chance), _colour(chance)], np.float64)
    image = first + (last - first) * share[..., np.newaxis] + numbers.normal(0, chance.uniform(0, 12), (SIZE, SIZE, 1))
    return np.asarray(image.clip(0, 255), np.uint8)


KINDS: Final[Mapping[str, Callable[[str], Pixels]]] = {
    "blank": _blank,
    "noise": _noise,
    "text": _text,
    "screen": _screen,
    "drawing": _drawing,
    "diagram": _diagram,
    "texture": _texture,
}
