"""Paints a drawn scene with smooth edges, textures, and backgrounds that are not quite flat."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from capprune.data.scene_facts import Scene, SceneObject

SUPERSAMPLING: Final = 2  # scale of the painting before it is averaged down, which smooths every edge

Colour = tuple[int, int, int]
Point = tuple[float, float]

PAINT: Final[dict[str, tuple[Colour, Colour]]] = {
    "red": ((216, 30, 36), (255, 186, 180)),
    "orange": ((248, 132, 16), (255, 222, 170)),
    "yellow": ((252, 220, 24), (168, 128, 0)),
    "green": ((22, 140, 58), (178, 236, 180)),
    "blue": ((24, 80, 220), (176, 202, 255)),
    "purple": ((148, 40, 154), (228, 184, 240)),
    "black": ((20, 20, 22), (150, 150, 154)),
    "white": ((250, 250, 250), (128, 128, 132)),
}
"""The paint of a colour, and that of its stripes and dots: the same hue, far lighter or darker."""

STRIPES: Final = 5.5  # per object
DOTS: Final = 4.5  # per object
BLADES, GRAINS, CLOUDS, COURSES, PLANKS = 90, 160, 3, 9, 6  # of grass, sand, the sky, brick walls, the floor


def paint_scene(scene: Scene, size: int, chance: random.Random) -> npt.NDArray[np.uint8]:
    """Paint a scene.

    Args:
        scene: The scene.
        size: Side of the photo in pixels.
        chance: Random generator for details outside the ground truth: blades of grass, clouds, grains.

    Returns:
        RGB photo, uint8 (size, size, 3).
    """
    side = size * SUPERSAMPLING
    canvas = Image.new("RGB", (side, side))
    BACKDROPS[scene.background](ImageDraw.Draw(canvas), side, chance)
    for each in scene.objects:
        _paint_object(canvas, each, side)
    return np.asarray(canvas.reduce(SUPERSAMPLING))


def _paint_object(canvas: Image.Image, each: SceneObject, side: int) -> None:
    paint, accent = PAINT[each.colour]
    radius, turn = each.diameter * side / 2, math.radians(each.tilt)
    box = 2 * math.ceil(radius)
    across, down = radius * math.cos(turn), radius * math.sin(turn)
    outline = [(box / 2 + x * across - y * down, box / 2 + x * down + y * across) for x, y in OUTLINES[each.shape]]
    stencil = Image.new("L", (box, box))
    ImageDraw.Draw(stencil).polygon(outline, fill=255)
    fabric = Image.new("RGB", (box, box), paint)
    if each.texture == "striped":
        _paint_stripes(ImageDraw.Draw(fabric), box, accent)
    elif each.texture == "dotted":
        _paint_dots(ImageDraw.Draw(fabric), box, accent)
    canvas.paste(fabric, (round(each.x * side - box / 2), round(each.y * side - box / 2)), stencil)


def _paint_stripes(draw: ImageDraw.ImageDraw, box: int, accent: Colour) -> None:
    period = box / STRIPES
    for number in range(math.ceil(2 * STRIPES)):
        start = number * period
        draw.line([(start, 0), (start - box, box)], fill=accent, width=round(period * 0.32))


def _paint_dots(draw: ImageDraw.ImageDraw, box: int, accent: Colour) -> None:
    period = box / DOTS
    for row in range(math.ceil(DOTS) + 1):
        for column in range(math.ceil(DOTS) + 1):
            x, y = (column + 0.5 * (row % 2)) * period, row * period
            draw.circle((x, y), period * 0.3, fill=accent)


def _paint_wall(draw: ImageDraw.ImageDraw, side: int, chance: random.Random) -> None:
    joint, height = (206, 204, 200), side / COURSES
    draw.rectangle((0, 0, side, side), fill=(236, 235, 231))
    shift = chance.random()
    for course in range(COURSES):
        top = course * height
        draw.line([(0, top), (side, top)], fill=joint, width=side // 220)
        for brick in range(-1, 5):
            x = (brick + 0.5 * (course % 2) + shift) * side / 4
            draw.line([(x, top), (x, top + height)], fill=joint, width=side // 220)


def _paint_grass(draw: ImageDraw.ImageDraw, side: int, chance: random.Random) -> None:
    draw.rectangle((0, 0, side, side), fill=(122, 186, 84))
    for number in range(BLADES):
        x, y, lean = chance.random() * side, chance.random() * side, chance.uniform(-0.02, 0.02) * side
        green = (100, 164, 64) if number % 2 else (146, 206, 106)
        draw.line([(x, y), (x + lean, y - 0.06 * side)], fill=green, width=side // 150)


def _paint_sky(draw: ImageDraw.ImageDraw, side: int, chance: random.Random) -> None:
    bands = 16
    for band in range(bands):
        top = band * side / bands
        draw.rectangle((0, top, side, top + side / bands), fill=(138 + 4 * band, 196 + 2 * band, 240))
    for _ in range(CLOUDS):
        x, y, puff = chance.random() * side, chance.random() * side, chance.uniform(0.03, 0.05) * side
        for shift in (-1.3, 0.0, 1.3):
            draw.circle((x + shift * puff, y + abs(shift) * 0.3 * puff), puff, fill=(236, 243, 250))


def _paint_sand(draw: ImageDraw.ImageDraw, side: int, chance: random.Random) -> None:
    draw.rectangle((0, 0, side, side), fill=(224, 204, 160))
    for number in range(GRAINS):
        grain = (198, 174, 126) if number % 2 else (240, 226, 192)
        draw.circle((chance.random() * side, chance.random() * side), side / 180, fill=grain)


def _paint_floor(draw: ImageDraw.ImageDraw, side: int, chance: random.Random) -> None:
    width = side / PLANKS
    for plank in range(PLANKS):
        shade = chance.randrange(-8, 9)
        left, wood = plank * width, (146 + shade, 100 + shade, 62 + shade)
        draw.rectangle((left, 0, left + width, side), fill=wood)
        draw.line([(left, 0), (left, side)], fill=(96, 62, 36), width=side // 120)
        for _ in range(3):
            x = left + chance.uniform(0.2, 0.8) * width
            draw.line([(x, 0), (x, side)], fill=(128, 86, 52), width=side // 220)


BACKDROPS: Final[dict[str, Callable[[ImageDraw.ImageDraw, int, random.Random], None]]] = {
    "wall": _paint_wall,
    "grass": _paint_grass,
    "sky": _paint_sky,
    "sand": _paint_sand,
    "floor": _paint_floor,
}


def _round_outline(corners: int) -> list[Point]:
    return [_on_circle(turn / corners) for turn in range(corners)]


def _on_circle(turn: float, radius: float = 1.0) -> Point:
    """Return the point at the fraction `turn` of a clockwise turn from the top."""
    return radius * math.sin(2 * math.pi * turn), -radius * math.cos(2 * math.pi * turn)


def _star() -> list[Point]:
    return [_on_circle(point / 10, 0.45 if point % 2 else 1.0) for point in range(10)]


def _square() -> list[Point]:
    return [_on_circle((2 * corner + 1) / 8) for corner in range(4)]


def _cross() -> list[Point]:
    arm, end = 0.3, 0.93
    corners = (complex(-arm, -end), complex(arm, -end), complex(arm, -arm))
    turned = [corner * 1j**quarter for quarter in range(4) for corner in corners]
    return [(corner.real, corner.imag) for corner in turned]


def _heart() -> list[Point]:
    curve = []
    for step in range(48):
        at = 2 * math.pi * step / 48
        x = 16 * math.sin(at) ** 3
        y = 13 * math.cos(at) - 5 * math.cos(2 * at) - 2 * math.cos(3 * at) - math.cos(4 * at)
        curve.append((x / 18.3, -(y + 2.5) / 18.3))
    return curve


OUTLINES: Final[dict[str, list[Point]]] = {
    "circle": _round_outline(72),
    "square": _square(),
    "triangle": _round_outline(3),
    "star": _star(),
    "cross": _cross(),
    "heart": _heart(),
}
"""Corners of each shape inside the disc of radius 1 around (0, 0), y downwards."""
