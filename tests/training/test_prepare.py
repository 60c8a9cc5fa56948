from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from capprune.config.encoder import EncoderConfig
from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.data.captions import words
from capprune.data.scenes import draw_scenes
from capprune.data.views import View
from capprune.models.caption_model import FeatureExtractor, GridEncoder, normalised
from capprune.models.efficientnet_lite import CHANNELS
from capprune.training.prepare import Prepared, default_cache, prepare
from capprune.training.progress import Silent
from capprune.training.run import load_run
from capprune.training.session import train_run
from capprune_runtime.bundle.vocabulary import UNKNOWN
from capprune_runtime.errors import BundleError, CapPruneError, ConfigError, DataError, UsageError
from capprune_runtime.photo import decode_photo, read_photo, resize


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    draw_scenes(folder, count={"train": 6, "val": 4, "test": 1}, seed=0, size=64)
    return folder


def config(folder: Path, *overrides: str) -> RunConfig:
    tree = {"data": {"folder": str(folder), "minimum_count": 1}, "encoder": {"size": 64}}
    return parse_config(tree, overrides)


class Bars:
    """Progress bars that remember what they were told."""

    def __init__(self) -> None:
        self.told: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def __call__(self, label: str) -> Iterator[Callable[[int, int], None]]:
        told = self.told.setdefault(label, [])
        yield lambda done, total: told.append((done, total))


def prepared(scenes: Path, cache: Path, *overrides: str, bars: Bars | None = None) -> Prepared:
    return prepare(config(scenes, *overrides), cache=cache, bar=bars or Bars())


def test_splits_hold_features_and_ids_of_their_own_photos(scenes: Path, tmp_path: Path) -> None:
    bars = Bars()
    data = prepared(scenes, tmp_path, bars=bars)
    assert data.train.features.shape == (6, 4, CHANNELS)
    assert data.validation.features.shape == (4, 4, CHANNELS)
    assert list(data.validation.names) == [photo.name for photo in data.validation_photos]
    assert not set(data.train.names) & set(data.validation.names)
    assert all(len(own) == 5 for own in data.train.captions)
    extract = FeatureExtractor(GridEncoder(EncoderConfig(size=64)))
    for number, (photo, own) in enumerate(zip(data.validation_photos, data.validation.captions, strict=True)):
        assert own == [tuple(data.vocabulary.id(word) for word in words(text))[:20] for text in photo.captions]
        expected = extract(read_photo(scenes / photo.name, 64)[None])[0]
        np.testing.assert_allclose(data.validation.features[np.array([number])][0], expected, atol=0.01)
    assert all(UNKNOWN not in ids for own in data.train.captions for ids in own)  # words of train are all known
    assert float(np.abs(data.train.features[np.arange(6)]).max()) > 0
    assert bars.told["features of train"][-1] == (6, 6)
    assert bars.told["features of val"][-1] == (4, 4)


def test_encoder_that_learns_gets_pixels(scenes: Path, tmp_path: Path) -> None:
    bars = Bars()
    data = prepared(scenes, tmp_path, "encoder.train=masks", bars=bars)
    assert data.train.features.shape == (6, 64, 64, 3)
    first = data.validation.names[0]
    np.testing.assert_array_equal(data.validation.features[np.array([0])][0], read_photo(scenes / first, 64))
    assert bars.told["pixels of train"][-1] == (6, 6)


def test_encoder_that_learns_in_part_gets_what_the_rest_gives(scenes: Path, tmp_path: Path) -> None:
    bars = Bars()
    data = prepared(scenes, tmp_path, "encoder.train=all", "encoder.frozen_blocks=11", bars=bars)
    assert data.train.features.shape == (6, 4, 4, 112)
    photo = read_photo(scenes / data.validation.names[0], 64)
    encoder = GridEncoder(EncoderConfig(size=64, frozen_blocks=11))
    given = data.validation.features[np.array([0])].astype(np.float32)
    with torch.inference_mode():
        features = encoder.above(torch.from_numpy(given).permute(0, 3, 1, 2))
        np.testing.assert_allclose(features, encoder(normalised(photo[None])), atol=0.02)
    assert bars.told["features of train"][-1] == (6, 6)


def with_sides(folder: Path, number: int) -> str:
    """Make a caption of one training photo say "left", and no other say a side. Returns its name."""
    (path,) = folder.glob("dataset_*.json")
    text = re.sub(r"\b(left|right)\b", "far", path.read_text())
    content = json.loads(text)
    photo = [one for one in content["images"] if one["split"] == "train"][number]
    photo["sentences"][0] = {"raw": "A shape on the LEFT.", "tokens": ["a", "shape", "on", "the", "left"]}
    path.write_text(json.dumps(content))
    return str(photo["filename"])


@pytest.mark.parametrize("learns", ["frozen", "all"])
def test_flip_adds_the_mirror_image_of_photos_without_a_side(learns: str, scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    shutil.copytree(scenes, folder)
    sided = with_sides(folder, 2)
    settings = (f"encoder.train={learns}", "data.minimum_count=6")
    plain = prepared(folder, tmp_path, *settings)
    bars = Bars()
    data = prepared(folder, tmp_path, *settings, "data.flip=true", bars=bars)
    assert list(data.train.names[:6]) == list(plain.train.names) and Path(plain.train.names[2]).name == Path(sided).name
    assert list(data.train.names[6:]) == [name for name in plain.train.names if name != plain.train.names[2]]
    assert data.train.weights == [0.5, 0.5, 1, 0.5, 0.5, 0.5, *[0.5] * 5]
    assert data.train.captions[6:] == [own for place, own in enumerate(plain.train.captions) if place != 2]
    assert data.vocabulary.tokens == plain.vocabulary.tokens  # a word is not counted twice
    assert data.validation.names == plain.validation.names
    rows = data.train.features[np.arange(11)]
    np.testing.assert_array_equal(rows[:6], plain.train.features[np.arange(6)])
    photo = read_photo(folder / data.train.names[7], 64)[:, ::-1]
    if learns == "all":
        np.testing.assert_array_equal(rows[7], photo)
    else:
        expected = FeatureExtractor(GridEncoder(EncoderConfig(size=64)))(np.ascontiguousarray(photo)[None])[0]
        np.testing.assert_allclose(rows[7], expected, atol=0.01)
    assert not np.array_equal(rows[7], rows[1])
    kind = "pixels" if learns == "all" else "features"
    assert bars.told[f"{kind} of train, mirrored"][-1] == (5, 5)
    assert "train: 5 of 6 photos are mirrored too; captions of the others say left or right" in data.notes
    again = prepared(folder, tmp_path, *settings, "data.flip=true")
    assert f"train, mirrored: 5 of 5 photos from the cache {tmp_path}" in again.notes


def test_flip_mirrors_what_a_teacher_sees_too(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_run(config(scenes, "encoder.grid=1", "training.epochs=1", "decoder.hidden=8"), run, tmp_path)
    data = prepared(scenes, tmp_path, "encoder.train=all", f"training.distillation.teacher={run}", "data.flip=true")
    both = np.arange(len(data.train.names))
    assert len(both) > 6
    expected = FeatureExtractor(load_run(run).model.encoder)(data.train.features[both])
    np.testing.assert_allclose(data.train.taught[0][both], expected, atol=0.01)


def test_flip_with_photos_that_are_skipped_counts_them_once(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    shutil.copytree(scenes, folder)
    first, second, *_ = prepared(folder, tmp_path).train.names
    (folder / first).unlink()
    (folder / second).write_bytes(b"no photo")
    data = prepared(folder, tmp_path, "data.broken=skip", "data.flip=true")
    assert first not in data.train.names and second not in data.train.names
    assert len(data.train.names) == len(data.train.captions) == data.train.features.shape[0]
    assert (
        len([note for note in data.notes if first in note]) == len([note for note in data.notes if second in note]) == 1
    )


def test_crops_add_parts_of_photos_and_their_mirror_images(scenes: Path, tmp_path: Path) -> None:
    plain = prepared(scenes, tmp_path, "encoder.train=all", "data.weight=1.5")
    settings = ("encoder.train=all", "data.weight=1.5", "data.crops=2")
    data = prepared(scenes, tmp_path, *settings)
    names = list(plain.train.names)
    assert list(data.train.names) == names * 3
    assert data.train.captions == plain.train.captions * 3 and data.vocabulary.tokens == plain.vocabulary.tokens
    assert data.train.weights == [0.5] * 18  # a third of 1.5 each, so an epoch has as many steps as before
    assert data.validation.features.shape == plain.validation.features.shape
    rows = data.train.features[np.arange(18)]
    np.testing.assert_array_equal(rows[:6], plain.train.features[np.arange(6)])
    for number in (1, 2):
        photo = decode_photo((scenes / names[3]).read_bytes(), names[3])
        np.testing.assert_array_equal(rows[6 * number + 3], resize(View(number).cut(photo, names[3]), 64))
    assert len({row.tobytes() for row in rows}) == 18
    both = prepared(scenes, tmp_path, *settings, "data.flip=true")
    sided = [name for name in names if list(both.train.names).count(name) == 3]
    assert list(both.train.names)[:18] == names * 3 and len(both.train.names) == 18 + 3 * (6 - len(sided))
    pixels = both.train.features[np.arange(len(both.train.names))]
    turned = [place for place, name in enumerate(names * 3) if name not in sided]
    np.testing.assert_array_equal(pixels[18:], pixels[turned][:, :, ::-1])


def test_views_need_photos(scenes: Path) -> None:
    for key, value in (("flip", True), ("crops", 2)):
        with pytest.raises(ConfigError, match=r"data\.shards cannot be combined with data\.flip or data\.crops"):
            config(scenes, f"data.{key}={str(value).lower()}", f"data.shards={scenes}")
        with pytest.raises(ConfigError, match=r"data\.flip and data\.crops need photos"):
            parse_config(
                {"data": {"folder": str(scenes), key: value}, "encoder": {"name": "regions", "channels": 4}}, ()
            )


def test_teacher_gets_the_features_of_its_own_encoder(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    own = ("encoder.grid=1", "encoder.train=all", "training.epochs=1", "decoder.hidden=8")
    train_run(config(scenes, *own), run, tmp_path)
    data = prepared(scenes, tmp_path, "encoder.train=all", f"training.distillation.teacher={run}")
    assert data.train.features.shape == (6, 64, 64, 3)
    assert len(data.train.taught) == 1 and data.validation.taught == ()
    extract = FeatureExtractor(load_run(run).model.encoder)
    expected = extract(data.train.features[np.arange(6)])
    np.testing.assert_allclose(data.train.taught[0][np.arange(6)], expected, atol=0.01)


class Said(Silent):
    """Remembers the lines it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str, /) -> None:
        self.lines.append(message)


def test_finished_run_is_told_without_its_photos_but_not_without_its_captions(scenes: Path, tmp_path: Path) -> None:
    folder, run = tmp_path / "scenes", tmp_path / "run"
    shutil.copytree(scenes, folder)
    own = config(folder, "encoder.grid=1", "training.epochs=1", "decoder.hidden=8")
    first = train_run(own, run, tmp_path / "cache")
    for photo in folder.rglob("*.png"):
        photo.unlink()
    said = Said()
    again = train_run(own, run, tmp_path / "none", said)
    assert (again.epoch, again.cider, again.sparsity) == (first.epoch, first.cider, first.sparsity)
    assert said.lines == [f"{run} is finished already"] and not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="a run of another config"):
        train_run(config(folder, "encoder.grid=1", "training.epochs=2", "decoder.hidden=8"), run, tmp_path / "none")
    with_sides(folder, 0)
    with pytest.raises(BundleError, match="captions have changed"):
        train_run(own, run, tmp_path / "none")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("encoder.train=all", "encoder.start={run}"), "an encoder that learns starts from that of `start`"),
        (("start={run}", "decoder.hidden=16"), "another decoder"),
        (("start={run}", "decoder.hidden=8", "data.minimum_count=8"), "other words"),
        (("start={run}", "decoder.hidden=8", "pruning.method=keep"), "no masks to keep"),
    ],
)
def test_what_cannot_start_is_refused_before_features(
    overrides: tuple[str, ...], message: str, scenes: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train_run(config(scenes, "encoder.grid=1", "training.epochs=1", "decoder.hidden=8"), run, tmp_path)
    wanted = config(scenes, "encoder.grid=1", *(one.format(run=run) for one in overrides))
    with pytest.raises(CapPruneError, match=message):
        train_run(wanted, tmp_path / "new", tmp_path / "none")
    assert not (tmp_path / "none").exists() and not (tmp_path / "new").exists()


def test_limits_keep_the_first_photos(scenes: Path, tmp_path: Path) -> None:
    whole = prepared(scenes, tmp_path)
    few = prepared(scenes, tmp_path, "data.limit=3", "training.validation_photos=2", "data.maximum_tokens=4")
    assert list(few.train.names) == list(whole.train.names)[:3]
    assert list(few.validation.names) == list(whole.validation.names)[:2]
    assert max(len(ids) for own in few.train.captions for ids in own) == 4


def test_rare_words_are_unknown(scenes: Path, tmp_path: Path) -> None:
    data = prepared(scenes, tmp_path, "data.minimum_count=8")
    assert any(UNKNOWN in ids for own in data.train.captions for ids in own)


def test_empty_split_is_a_data_error(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "scenes", count={"train": 2}, seed=0, size=64)
    with pytest.raises(DataError, match="val"):
        prepared(tmp_path / "scenes", tmp_path / "cache")


def test_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        prepared(tmp_path / "gone", tmp_path / "cache")


def test_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.setenv("CAPPRUNE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "capprune"
