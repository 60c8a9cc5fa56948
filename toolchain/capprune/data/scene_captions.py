"""Captions of a drawn scene, and checks whether a caption names the scene's objects correctly."""

from __future__ import annotations

import random
from typing import Final

from capprune.data.captions import words
from capprune.data.scene_facts import COLOURS, OPPOSITE, SHAPES, Scene, SceneObject

CAPTIONS: Final = 5  # per scene, each from a different template
MAXIMUM_WORDS: Final = 18  # maximum words of a caption

TEMPLATES: Final = {
    1: (
        "{main} {place}",
        "there is {big} {place}",
        "the picture shows {detailed} {place}",
        "a photo of {ground} with {main}",
        "{detailed} drawn {place}",
        "only {big} can be seen {place}",
    ),
    2: (
        "{main} {beside} {second} {place}",
        "there is {big} {by} {little} {place}",
        "{big} with {little} {opposite} {place}",
        "two shapes {place}: {short} and {short_second}",
        "a photo of {ground} with {main} and {second}",
        "the picture shows {detailed} and {short_second} {place}",
    ),
    3: (
        "{main} {by} {short_second} and {by_third} {short_third}",
        "three shapes {place}: {short}, {bare_second} and {bare_third}",
        "{big} with {little} {opposite} {place}",
        "there is {big} with {short_second} and {short_third}",
        "a photo of {ground} with {main}, {bare_second} and {bare_third}",
        "the picture shows {detailed}, {bare_second} and {bare_third}",
    ),
}
"""Templates by the number of objects. Each names the main object first; those for three may leave one out."""

PLACE: Final = {
    "wall": "on a wall",
    "grass": "on the grass",
    "sky": "in the sky",
    "sand": "on the sand",
    "floor": "on the floor",
}
GROUND: Final = {"wall": "a wall", "grass": "grass", "sky": "the sky", "sand": "sand", "floor": "a floor"}
BESIDE: Final = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
BY: Final = {"left of": "left of", "right of": "right of", "above": "over", "below": "under"}
ITS_SIDE: Final = {"left of": "to its left", "right of": "to its right", "above": "above it", "below": "below it"}
INFORMAL: Final = {"large": "big", "small": "little"}
MARKS: Final = {"striped": "with stripes", "dotted": "with dots"}


def describe_scene(scene: Scene, chance: random.Random) -> tuple[str, ...]:
    """Generate captions of a scene.

    Args:
        scene: The ground truth.
        chance: Random generator for the templates and their order.

    Returns:
        `CAPTIONS` sentences of at most `MAXIMUM_WORDS` words from different templates. Each begins with the main
        object. Each mentioned object has its colour and shape.
    """
    phrases = _phrases(scene)
    templates = chance.sample(TEMPLATES[len(scene.objects)], CAPTIONS)
    return tuple(template.format(**phrases) for template in templates)


def mentioned_objects(caption: str) -> tuple[tuple[str | None, str], ...]:
    """Return the colour and shape of each object in a caption, in order; None for a missing colour."""
    mentions: list[tuple[str | None, str]] = []
    colour = None
    for word in words(caption):
        if word in COLOURS:
            colour = word
        elif word in SHAPES:
            mentions.append((colour, word))
            colour = None
    return tuple(mentions)


def names_main_object(caption: str, scene: Scene) -> bool:
    """Return whether the first object in a caption has the colour and shape of the scene's main object."""
    return mentioned_objects(caption)[:1] == ((scene.main.colour, scene.main.shape),)


def names_all_right(caption: str, scene: Scene) -> bool:
    """Return whether a caption names the main object first, and then only objects of the scene."""
    there = {(each.colour, each.shape) for each in scene.objects}
    return names_main_object(caption, scene) and set(mentioned_objects(caption)) <= there


def _phrases(scene: Scene) -> dict[str, str]:
    main, place, ground = scene.main, PLACE[scene.background], GROUND[scene.background]
    marks = MARKS.get(main.texture)
    phrases = {
        "place": place,
        "ground": ground,
        "main": _noun(main.size, main.colour, _spoken(main), main.shape),
        "big": _noun(INFORMAL[main.size], main.colour, _spoken(main), main.shape),
        "short": _noun(main.colour, _spoken(main), main.shape),
        "detailed": f"{_noun(main.size, main.colour, main.shape)} {marks}"
        if marks
        else _noun(main.size, "plain", main.colour, main.shape),
    }
    if len(scene.objects) > 1:
        second, relation = scene.objects[1], scene.relations[0]
        phrases |= {
            "second": _noun(second.size, second.colour, _spoken(second), second.shape),
            "little": _noun(INFORMAL[second.size], second.colour, _spoken(second), second.shape),
            "short_second": _noun(second.colour, _spoken(second), second.shape),
            "bare_second": _noun(second.colour, second.shape),
            "beside": BESIDE[relation],
            "by": BY[relation],
            "opposite": ITS_SIDE[OPPOSITE[relation]],
        }
    if len(scene.objects) > 2:
        third = scene.objects[2]
        phrases |= {
            "short_third": _noun(third.colour, _spoken(third), third.shape),
            "bare_third": _noun(third.colour, third.shape),
            "by_third": BY[scene.relations[1]],
        }
    return phrases


def _spoken(each: SceneObject) -> str:
    """Return the texture as an adjective; empty for "plain"."""
    return "" if each.texture == "plain" else each.texture


def _noun(*parts: str) -> str:
    phrase = " ".join(filter(None, parts))
    return f"an {phrase}" if phrase.startswith("orange") else f"a {phrase}"
