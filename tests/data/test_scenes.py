from __future__ import annotations

import filecmp
import math
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from capprune.data.captions import CaptionSet, load_caption_set, words
from capprune.data.photos import open_photos
from capprune.data.scene_captions import CAPTIONS, MAXIMUM_WORDS, TEMPLATES, describe_scene
from capprune.data.scene_facts import (
    BACKGROUNDS,
    CAMOUFLAGE,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    SceneObject,
    imagine_scene,
)
from capprune.data.scene_painting import OUTLINES, PAINT, paint_scene
from capprune.data.scenes import (
    draw_scenes,
    golden_scenes,
    mentioned_objects,
    names_all_right,
    names_main_object,
    read_scenes,
)
from capprune_runtime.errors import DataError, UsageError

scenes = st.integers(0, 2**32).map(lambda seed: imagine_scene(random.Random(seed)))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CaptionSet]:
    folder = tmp_path_factory.mktemp("drawn") / "scenes"
    return folder, draw_scenes(folder, count={"train": 60, "val": 10, "test": 10}, seed=3, size=64)


def test_same_seed_gives_the_same_bytes_in_every_file(tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    for folder, seed in ((first, 7), (second, 7), (other, 8)):
        draw_scenes(folder, count={"train": 6, "test": 2}, seed=seed)
    files = [path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()]
    assert len(files) == 9
    assert filecmp.cmpfiles(first, second, files, shallow=False) == (files, [], [])
    assert sorted(filecmp.cmpfiles(first, other, files, shallow=False)[1]) == sorted(files)


def test_a_larger_data_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    small = draw_scenes(tmp_path / "small", count={"train": 2}, seed=1, size=64)
    large = draw_scenes(tmp_path / "large", count={"train": 4}, seed=1, size=64)
    assert large.photos[:2] == small.photos
    name = small.photos[1].name
    assert (tmp_path / "small" / name).read_bytes() == (tmp_path / "large" / name).read_bytes()


def test_photo_size_changes_neither_facts_nor_captions(tmp_path: Path) -> None:
    small = draw_scenes(tmp_path / "small", count={"train": 5}, seed=1, size=64)
    large = draw_scenes(tmp_path / "large", count={"train": 5}, seed=1, size=96)
    assert small == large
    assert read_scenes(tmp_path / "small") == read_scenes(tmp_path / "large")


def test_drawn_data_set_reads_back_as_it_was_returned(drawn: tuple[Path, CaptionSet]) -> None:
    folder, captions = drawn
    assert load_caption_set(folder) == captions
    assert captions.splits == {"train": 60, "val": 10, "test": 10}
    with open_photos(folder) as photos:
        photos.require([photo.name for photo in captions.photos])
    for photo in captions.photos[:5]:
        with Image.open(folder / photo.name) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))


def test_ground_truth_fits_every_caption(drawn: tuple[Path, CaptionSet]) -> None:
    folder, captions = drawn
    truth = read_scenes(folder)
    assert set(truth) == {photo.name for photo in captions.photos}
    assert all(names_all_right(caption, truth[photo.name]) for photo in captions.photos for caption in photo.captions)


def test_captions_say_more_than_forty_words_and_all_there_is() -> None:
    chance = random.Random(5)
    said = {word for _ in range(300) for each in describe_scene(imagine_scene(chance), chance) for word in words(each)}
    assert len(said) > 40
    facts = {*SHAPES, *COLOURS, *SIZES, *TEXTURES, *BACKGROUNDS, "left", "right", "above", "below"}
    assert facts <= said


@given(scenes, st.integers(0, 2**32))
def test_each_scene_is_said_in_five_ways_that_begin_with_its_main_object(scene: Scene, seed: int) -> None:
    captions = describe_scene(scene, random.Random(seed))
    assert len(set(captions)) == CAPTIONS
    assert all(0 < len(words(caption)) <= MAXIMUM_WORDS for caption in captions)
    assert all(names_all_right(caption, scene) for caption in captions)
    unsaid = [caption for caption in captions if None in {colour for colour, _ in mentioned_objects(caption)}]
    assert not unsaid
    fully = [caption for caption in captions if len(mentioned_objects(caption)) == len(scene.objects)]
    assert len(fully) >= CAPTIONS - 1  # one template for three objects leaves the third out


@given(scenes)
def test_each_caption_of_a_scene_comes_from_a_template_of_its_own(scene: Scene) -> None:
    forms = [re.sub(r"\{\w+\}", "(.+)", form) for form in TEMPLATES[len(scene.objects)]]
    assert len(set(forms)) == len(forms) >= CAPTIONS
    for caption in describe_scene(scene, random.Random(0)):
        assert any(re.fullmatch(form, caption) for form in forms), caption


@given(scenes)
def test_objects_lie_apart_inside_the_photo_and_differ(scene: Scene) -> None:
    objects = scene.objects
    assert 1 <= len(objects) <= 3
    assert len({each.shape for each in objects}) == len({each.colour for each in objects}) == len(objects)
    for number, each in enumerate(objects):
        reach = each.diameter / 2
        assert reach <= each.x <= 1 - reach
        assert reach <= each.y <= 1 - reach
        assert each.colour not in CAMOUFLAGE[scene.background]
        for other in objects[:number]:
            assert math.dist((each.x, each.y), (other.x, other.y)) > reach + other.diameter / 2
    if len(objects) > 1:
        assert [each.size for each in objects] == ["large", *["small"] * (len(objects) - 1)]


@given(scenes)
def test_relations_say_where_the_main_object_lies(scene: Scene) -> None:
    assert len(scene.relations) == len(scene.objects) - 1
    for relation, other in zip(scene.relations, scene.objects[1:], strict=True):
        across, down = scene.main.x - other.x, scene.main.y - other.y
        expected = ("left of" if across < 0 else "right of") if abs(across) > abs(down) else None
        assert relation == (expected or ("above" if down < 0 else "below"))
        assert relation in RELATIONS


@given(scenes)
def test_scene_survives_its_json(scene: Scene) -> None:
    assert Scene.from_json(scene.as_json()) == scene


def test_every_shape_lies_in_its_disc_and_is_not_small_in_it() -> None:
    assert set(OUTLINES) == set(SHAPES)
    for shape, corners in OUTLINES.items():
        assert max(math.hypot(*corner) for corner in corners) <= 1 + 1e-9, shape
        shoelace = sum(x * v - u * y for (x, y), (u, v) in zip(corners, corners[1:] + corners[:1], strict=True))
        assert abs(shoelace) / 2 > 0.35 * math.pi, shape


@pytest.mark.parametrize("colour", COLOURS)
def test_object_is_painted_where_and_as_the_facts_say(colour: str) -> None:
    each = SceneObject("circle", colour, "plain", "large", x=0.3, y=0.6, diameter=0.4, tilt=0.0)
    rgb = paint_scene(Scene("wall", (each,), ()), 100, random.Random(0))
    assert rgb.shape == (100, 100, 3)
    assert rgb.dtype == np.uint8
    same = (rgb == np.array(PAINT[colour][0])).all(-1)
    rows, columns = np.nonzero(same)
    assert (rows.mean(), columns.mean()) == pytest.approx((60, 30), abs=1)
    assert same.sum() == pytest.approx(math.pi * 20**2, rel=0.1)


def test_edges_are_smooth() -> None:
    each = SceneObject("circle", "black", "plain", "large", x=0.5, y=0.5, diameter=0.5, tilt=0.0)
    rgb = paint_scene(Scene("wall", (each,), ()), 100, random.Random(0))
    assert ((rgb > 60) & (rgb < 190)).any(-1).sum() > 50


@pytest.mark.parametrize("texture", ["striped", "dotted"])
def test_texture_shows_both_paints(texture: str) -> None:
    each = SceneObject("square", "red", texture, "small", x=0.5, y=0.5, diameter=0.3, tilt=5.0)
    rgb = paint_scene(Scene("grass", (each,), ()), 224, random.Random(0))
    shares = [(rgb == np.array(paint)).all(-1).mean() for paint in PAINT["red"]]
    assert min(shares) > 0.003


def test_judging_a_caption_by_the_scene() -> None:
    star = SceneObject("star", "red", "plain", "large", 0.3, 0.5, 0.4, 0.0)
    heart = SceneObject("heart", "blue", "plain", "small", 0.8, 0.5, 0.2, 0.0)
    scene = Scene("grass", (star, heart), ("left of",))
    assert names_main_object("a big red dotted star on the sand", scene)
    assert names_all_right("grass with a Red star and a blue heart.", scene)
    assert names_main_object("a red star and a red circle", scene)
    assert not names_all_right("a red star and a red circle", scene)
    assert not names_main_object("a blue heart and a red star", scene)
    assert not names_main_object("a star that is red", scene)
    assert not names_all_right("a red star and a heart", scene)
    assert not names_main_object("", scene)
    assert mentioned_objects("a large blue striped cross, a star") == (("blue", "cross"), (None, "star"))


def test_golden_scenes_are_always_the_same_and_in_no_data_set() -> None:
    golden = golden_scenes(3)
    assert [name for _, name in golden] == ["scene-0", "scene-1", "scene-2"]
    for (rgb, _), (again, _) in zip(golden, golden_scenes(3), strict=True):
        assert rgb.shape == (224, 224, 3)
        assert rgb.dtype == np.uint8
        assert (rgb == again).all()
    assert not (golden[0][0] == golden[1][0]).all()


def test_folder_with_something_in_it_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="something here already"):
        draw_scenes(tmp_path, count={"train": 1}, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    draw_scenes(tmp_path / "out", count={"train": 1}, seed=0, size=64)
    assert len(load_caption_set(tmp_path / "out").photos) == 1


def test_interrupted_drawing_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 9
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_scenes(tmp_path / "out", count={"train": 9}, seed=0, size=64, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [{}, {"train": 3, "test": 0}, {"train": -1}])
def test_split_without_photos_is_refused(tmp_path: Path, count: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="every split needs photos"):
        draw_scenes(tmp_path / "out", count=count, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_photos_too_small_to_see_anything_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too small"):
        draw_scenes(tmp_path / "out", count={"train": 1}, seed=0, size=8)


def test_damaged_ground_truth_is_a_data_error(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "out", count={"train": 1}, seed=0, size=64)
    path = tmp_path / "out" / "dataset_scenes.json"
    path.write_text(path.read_text().replace('"shape"', '"form"'))
    with pytest.raises(DataError, match="ground truth"):
        read_scenes(tmp_path / "out")
    with pytest.raises(DataError, match="ground truth"):
        read_scenes(tmp_path)


def test_a_hundred_scenes_take_less_than_a_second_of_processor_time(tmp_path: Path) -> None:
    started = time.process_time()
    draw_scenes(tmp_path / "out", count={"train": 100}, seed=0)
    assert time.process_time() - started < 1.0
