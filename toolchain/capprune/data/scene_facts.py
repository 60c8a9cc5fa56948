"""The objects of a drawn scene: the ground truth of its photo and its captions."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass
from typing import Any, Final

SHAPES: Final = ("circle", "square", "triangle", "star", "cross", "heart")
COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "black", "white")
TEXTURES: Final = ("plain", "striped", "dotted")
SIZES: Final = ("large", "small")
RELATIONS: Final = ("left of", "right of", "above", "below")
OPPOSITE: Final = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

CAMOUFLAGE: Final = {
    "wall": ("white",),
    "grass": ("green",),
    "sky": ("blue", "white"),
    "sand": ("yellow", "orange"),
    "floor": ("orange", "black"),
}
"""Colours that cannot be distinguished from a background; no object on it has them."""
BACKGROUNDS: Final = tuple(CAMOUFLAGE)

OBJECT_COUNTS: Final = (1, 1, 1, 1, 2, 2, 2, 3)  # values to draw from; smaller numbers of objects are more frequent
DIAMETERS: Final = {"large": (0.42, 0.48), "small": (0.26, 0.3)}  # as shares of the photo's side
MARGIN: Final = 0.02  # minimum distance to the photo's edge and between objects, as a share of the photo's side
TILT: Final = 12.0  # degrees in either direction; a square that is turned further looks like a diamond
DOMINANCE: Final = 1.4  # minimum ratio of the two axes of an offset for "left of" or "above"
ATTEMPTS: Final = 40  # positions to try before all objects are placed again


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        shape: One of `SHAPES`.
        colour: One of `COLOURS`.
        texture: One of `TEXTURES`.
        size: One of `SIZES`.
        x: Centre from the left edge, as a share of the photo's side.
        y: Centre from the upper edge, as a share of the photo's side.
        diameter: Diameter of the disc around the outline, as a share of the photo's side.
        tilt: Degrees clockwise.
    """

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    diameter: float
    tilt: float


@dataclass(frozen=True)
class Scene:
    """Content of one drawn photo.

    The main object comes first. Among several objects it is the only large one, and every caption begins with it. No
    two objects of a scene share a shape or a colour.

    Attributes:
        background: One of `BACKGROUNDS`.
        objects: One to three objects, the main one first, the others from left to right.
        relations: Position of the main object relative to each of the others; one of `RELATIONS` each.
    """

    background: str
    objects: tuple[SceneObject, ...]
    relations: tuple[str, ...]

    @property
    def main(self) -> SceneObject:
        """The object that every caption names first."""
        return self.objects[0]

    def as_json(self) -> dict[str, Any]:
        """Return the ground truth as written to the data set's JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Scene:
        """Return the scene from the result of `as_json`.

        Raises:
            KeyError: A fact is missing.
            TypeError: A fact has the wrong type or an unknown name.
        """
        objects = tuple(SceneObject(**each) for each in facts["objects"])
        return cls(background=facts["background"], objects=objects, relations=tuple(facts["relations"]))


def imagine_scene(chance: random.Random) -> Scene:
    """Draw a random scene; the same state of `chance` gives the same scene."""
    background = chance.choice(BACKGROUNDS)
    number = chance.choice(OBJECT_COUNTS)
    shapes = chance.sample(SHAPES, number)
    colours = chance.sample([each for each in COLOURS if each not in CAMOUFLAGE[background]], number)
    main_size = chance.choice(SIZES) if number == 1 else "large"
    sizes = [main_size, *["small"] * (number - 1)]
    diameters = [round(chance.uniform(*DIAMETERS[size]), 4) for size in sizes]
    places = None
    while places is None:
        places = _place(chance, diameters)
    main, *others = (
        SceneObject(shape, colour, chance.choice(TEXTURES), size, x, y, diameter, _tilt(chance))
        for shape, colour, size, diameter, (x, y) in zip(shapes, colours, sizes, diameters, places, strict=True)
    )
    others.sort(key=lambda each: each.x)
    relations = tuple(_relation((main.x, main.y), (each.x, each.y)) or "" for each in others)
    return Scene(background, (main, *others), relations)


def _tilt(chance: random.Random) -> float:
    return round(chance.uniform(-TILT, TILT), 1)


def _place(chance: random.Random, diameters: list[float]) -> list[tuple[float, float]] | None:
    """Return centres of discs that do not touch; each is clearly beside, above or below the first. None if it fails."""
    places: list[tuple[float, float]] = []
    for number, diameter in enumerate(diameters):
        low, high = diameter / 2 + MARGIN, 1 - diameter / 2 - MARGIN
        for _ in range(ATTEMPTS):
            place = (round(chance.uniform(low, high), 4), round(chance.uniform(low, high), 4))
            apart = all(
                math.dist(place, there) > (diameter + taken) / 2 + MARGIN
                for there, taken in zip(places, diameters, strict=False)
            )
            if apart and (number == 0 or _relation(places[0], place) is not None):
                places.append(place)
                break
        else:
            return None
    return places


def _relation(place: tuple[float, float], other: tuple[float, float]) -> str | None:
    """Return the position of `place` relative to `other`, or None if it is not clear."""
    across, down = place[0] - other[0], place[1] - other[1]
    if abs(across) >= DOMINANCE * abs(down):
        return "left of" if across < 0 else "right of"
    if abs(down) >= DOMINANCE * abs(across):
        return "above" if down < 0 else "below"
    return None
