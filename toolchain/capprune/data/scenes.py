"""A synthetic data set: drawn scenes of a few shapes, with their ground truth and five captions each.

It replaces photos where there are none: in the demo, in tests, and as a bundle's golden photos. A scene depends only on
the seed and on its number, so a larger data set begins with the smaller one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from capprune.data.captions import CaptionedPhoto, CaptionSet, words
from capprune.data.scene_captions import (
    describe_scene,
    mentioned_objects,
    names_all_right,
    names_main_object,
)
from capprune.data.scene_facts import Scene, SceneObject, imagine_scene
from capprune.data.scene_painting import paint_scene
from capprune_runtime.atomic import atomic_folder
from capprune_runtime.errors import DataError, UsageError

__all__ = [
    "SIZE",
    "Scene",
    "SceneObject",
    "draw_scenes",
    "golden_scenes",
    "mentioned_objects",
    "names_all_right",
    "names_main_object",
    "read_scenes",
]

NAME: Final = "scenes"
FILE: Final = f"dataset_{NAME}.json"
SIZE: Final = 224  # pixels, the encoder's input size
GOLDEN_SEED: Final = "golden"  # differs from the seeds of data sets, which are numbers


def draw_scenes(
    folder: Path,
    *,
    count: Mapping[str, int],
    seed: int,
    size: int = SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> CaptionSet:
    """Draw a data set: photos, five captions each, and the ground truth, in Karpathy's JSON layout.

    The same arguments give the same bytes in every file. The folder appears when it is complete.

    Args:
        folder: Folder to be made, with `dataset_scenes.json`, `photos/scene-00000.png` and so on.
        count: Photos in each split, in the order in which they are numbered.
        seed: Seed of the whole data set.
        size: Side of the photos in pixels.
        progress: Called with the number of drawn photos and of all photos.

    Returns:
        The captions, as `load_caption_set` reads them.

    Raises:
        UsageError: `folder` already exists, or a count or the size is invalid.
        CapPruneError: The disk is full.
    """
    _check(count, size)
    splits, entries = [split for split, number in count.items() for _ in range(number)], []
    with atomic_folder(folder) as unfinished:
        (unfinished / "photos").mkdir()
        for number, split in enumerate(splits):
            scene, rgb, captions = _scene(seed, number, size)
            entry = _entry(number, split, scene, captions)
            Image.fromarray(rgb).save(unfinished / entry["filepath"] / entry["filename"], compress_level=6)
            entries.append(entry)
            if progress is not None:
                progress(number + 1, len(splits))
        text = json.dumps({"dataset": NAME, "seed": seed, "images": entries}, separators=(",", ":"))
        (unfinished / FILE).write_text(text + "\n", encoding="utf-8")
    return CaptionSet(NAME, tuple(_captioned(entry) for entry in entries), "karpathy", (FILE,))


def _check(count: Mapping[str, int], size: int) -> None:
    wrong = [f"{split}: {number}" for split, number in count.items() if number < 1]
    if wrong or not count:
        raise UsageError("every split needs photos", expected="at least 1", found=", ".join(wrong) or "no split")
    if size < 32:
        raise UsageError("the photos are too small", expected="at least 32 pixels", found=f"{size} pixels")


def read_scenes(folder: Path) -> dict[str, Scene]:
    """Return the ground truth of a drawn data set, by photo name.

    Raises:
        DataError: There is no drawn data set here, or it is damaged.
    """
    path = folder / FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["images"]
        return {_name(entry): Scene.from_json(entry["scene"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "the ground truth of drawn scenes cannot be read",
            where=path,
            found=f"{type(error).__name__}: {error}",
            hint="draw the scenes again into a new folder",
        ) from error


def golden_scenes(count: int, size: int = SIZE) -> list[tuple[npt.NDArray[np.uint8], str]]:
    """Return fixed scenes for the self-check of a bundle.

    Args:
        count: Number of scenes.
        size: Side of the photos in pixels.

    Returns:
        Photos, uint8 (size, size, 3), each with a name such as "scene-0".
    """
    return [(_scene(GOLDEN_SEED, number, size)[1], f"scene-{number}") for number in range(count)]


def _scene(seed: int | str, number: int, size: int) -> tuple[Scene, npt.NDArray[np.uint8], tuple[str, ...]]:
    chance = random.Random(f"{seed}/{number}")  # strings are hashed with SHA-512, the same on every machine
    scene = imagine_scene(chance)
    captions = describe_scene(scene, chance)  # before painting, so that a photo's size does not change them
    return scene, paint_scene(scene, size, chance), captions


def _entry(number: int, split: str, scene: Scene, captions: tuple[str, ...]) -> dict[str, Any]:
    first = number * len(captions)
    sentences = [
        {"raw": caption, "tokens": words(caption), "imgid": number, "sentid": first + at}
        for at, caption in enumerate(captions)
    ]
    return {
        "imgid": number,
        "filepath": "photos",
        "filename": f"scene-{number:05}.png",
        "split": split,
        "sentids": [sentence["sentid"] for sentence in sentences],
        "sentences": sentences,
        "scene": scene.as_json(),
    }


def _name(entry: Mapping[str, Any]) -> str:
    return f"{entry['filepath']}/{entry['filename']}"


def _captioned(entry: Mapping[str, Any]) -> CaptionedPhoto:
    captions = tuple(sentence["raw"] for sentence in entry["sentences"])
    return CaptionedPhoto(_name(entry), entry["split"], captions)
