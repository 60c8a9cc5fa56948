"""Several data sets in one run: weights, confidence, names, and what each contributes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.data.captions import load_caption_set
from capprune.data.scenes import draw_scenes
from capprune.training.prepare import Prepared, prepare
from capprune_runtime.errors import CapPruneError, ConfigError, DataError

TRAIN = 8


def drawn(folder: Path, seed: int, val: int, *, confident: bool = False) -> Path:
    """Scenes; `confident` gives the training photos confidences 0.1, 0.2, ... in the order of the file."""
    draw_scenes(folder, count={"train": TRAIN, "val": val} if val else {"train": TRAIN}, seed=seed, size=64)
    if confident:
        (path,) = folder.glob("dataset_*.json")
        content = json.loads(path.read_bytes())
        for number, entry in enumerate(one for one in content["images"] if one["split"] == "train"):
            entry["confidence"] = (number + 1) / 10
        path.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The run's own data with val, one source with val and confidences, and one without val."""
    place = tmp_path_factory.mktemp("sources")
    return (
        drawn(place / "own", 0, 3),
        drawn(place / "labelled", 1, 2, confident=True),
        drawn(place / "more" / "labelled", 2, 0),
    )


def config(folders: tuple[Path, ...], *overrides: str, **own: object) -> RunConfig:
    sources = [{"folder": str(folder)} for folder in folders[1:]]
    sources[0] |= own  # type: ignore[arg-type]
    tree = {
        "data": {"folder": str(folders[0]), "minimum_count": 1, "sources": sources},
        "encoder": {"size": 64, "grid": 1},
    }
    return parse_config(tree, overrides)


@contextmanager
def no_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def prepared(wanted: RunConfig, cache: Path) -> Prepared:
    return prepare(wanted, cache=cache, bar=no_bar)


def test_every_source_adds_its_photos_under_names_of_its_own(folders: tuple[Path, ...], tmp_path: Path) -> None:
    data = prepared(config(folders), tmp_path)
    names = [photo.name for photo in load_caption_set(folders[0]).split("train")]
    assert list(data.train.names[:TRAIN]) == names
    assert data.train.names[TRAIN] == f"labelled/{names[0]}" and data.train.names[2 * TRAIN] == f"labelled-2/{names[0]}"
    assert data.train.weights is None and data.train.features.shape[0] == 3 * TRAIN == len(data.train.captions)
    assert len(data.validation_photos) == 5 and data.validation_photos[3].name.startswith("labelled/")
    assert list(data.validation.names) == [photo.name for photo in data.validation_photos]
    for start, folder in zip((0, TRAIN, 2 * TRAIN), folders, strict=True):
        alone = prepared(config((folders[0], folder) if start else (*folders[:2],)), tmp_path)
        there = start and TRAIN
        rows = alone.train.features[np.arange(there, there + TRAIN)]
        np.testing.assert_array_equal(data.train.features[np.arange(start, start + TRAIN)], rows)
        mixed = np.array([start + 1, 0, start])
        np.testing.assert_array_equal(data.train.features[mixed][2], rows[0])


def test_the_features_of_a_source_come_from_the_cache_when_another_is_added(
    folders: tuple[Path, ...], tmp_path: Path
) -> None:
    prepared(config(folders[:2]), tmp_path)
    notes = prepared(config(folders), tmp_path).notes
    assert any(f"labelled/train: {TRAIN} of {TRAIN} photos from the cache" in note for note in notes)
    assert not any("labelled-2/train" in note for note in notes)


def test_weights_and_confidence_decide_how_often_a_photo_is_used(folders: tuple[Path, ...], tmp_path: Path) -> None:
    data = prepared(config(folders, "data.weight=2", weight=3, confident_share=0.75, by_confidence=True), tmp_path)
    assert data.train.weights is not None
    own, labelled, more = (np.array(part) for part in np.split(np.array(data.train.weights), [TRAIN, TRAIN + 6]))
    assert (own == 2).all() and (more == 1).all() and len(more) == TRAIN
    np.testing.assert_allclose(labelled, 3 * np.arange(3, 9) / np.arange(3, 9).mean())
    assert any("labelled: 6 of 8 training photos, used 18 times in an epoch" in note for note in data.notes)
    assert any("own: 8 training photos, used 16 times in an epoch" in note for note in data.notes)


def test_one_folder_gives_two_sources_by_who_wrote_the_captions(folders: tuple[Path, ...], tmp_path: Path) -> None:
    both = drawn(tmp_path / "both", 1, 2, confident=True)
    (path,) = both.glob("dataset_*.json")
    content = json.loads(path.read_bytes())
    for entry in content["images"][:3]:
        del entry["confidence"]
    path.write_text(json.dumps(content))
    wanted = config((folders[0], both, both), "data.sources.1.captions=generated", captions="human", weight=2)
    data = prepared(wanted, tmp_path / "cache")
    names = [photo.name for photo in load_caption_set(both).split("train")]
    assert list(data.train.names[TRAIN:]) == [f"both/{name}" for name in names[:3]] + [
        f"both-2/{name}" for name in names[3:]
    ]
    assert any("both, human captions: 3 training photos, used 6 times" in note for note in data.notes)
    assert any("both, generated captions: 5 training photos, used 5 times" in note for note in data.notes)
    assert len(data.validation_photos) == 5  # of the own folder and of people; the generated ones have none in val
    assert wanted.data.label == "own + both (human captions) + both (generated captions)"
    with pytest.raises(DataError, match=r"(?s)no photo is left.*captions: generated"):
        prepared(config(folders, "data.sources.1.captions=generated"), tmp_path / "cache")


def test_confidence_that_is_not_there_or_no_number_is_a_data_error(folders: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no confidence") as caught:
        prepared(config((folders[0], folders[2]), confident_share=0.5), tmp_path)
    assert "confident_share" in str(caught.value.hint)
    (path,) = drawn(tmp_path / "odd", 3, 0, confident=True).glob("dataset_*.json")
    path.write_text(path.read_text().replace('"confidence": 0.2', '"confidence": "high"'))
    with pytest.raises(DataError, match="confidence"):
        prepared(config((folders[0], tmp_path / "odd")), tmp_path)


def test_objects_are_names_alone_or_first_in_a_list(folders: tuple[Path, ...], tmp_path: Path) -> None:
    (path,) = drawn(tmp_path / "own", 0, 1).glob("dataset_*.json")
    content = json.loads(path.read_bytes())
    content["images"][0]["objects"] = [["bowl", 0.7], "orange", ["bowl", 0.1]]
    content["images"][1]["objects"] = []
    path.write_text(json.dumps(content))
    found = load_caption_set(tmp_path / "own").photos
    assert [photo.objects for photo in found[:3]] == [("bowl", "orange"), (), ()]
    data = prepared(config((tmp_path / "own", *folders[1:])), tmp_path)
    assert data.train.objects[0] == ("bowl", "orange") and len(data.train.objects) == 3 * TRAIN
    content["images"][1]["objects"] = [["bowl"], 7]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="objects are not names"):
        load_caption_set(tmp_path / "own")


def test_captions_of_a_teacher_have_the_mean_confidence_of_their_sentences(tmp_path: Path) -> None:
    (path,) = drawn(tmp_path / "own", 0, 1).glob("dataset_*.json")
    content = json.loads(path.read_bytes())
    for number, sentence in enumerate(content["images"][0]["sentences"]):
        sentence["confidence"] = number / 10
    path.write_text(json.dumps(content))
    photos = load_caption_set(tmp_path / "own").photos
    assert photos[0].confidence == pytest.approx(0.2) and photos[1].confidence is None


def test_names_that_clash_with_a_source_are_refused(folders: tuple[Path, ...], tmp_path: Path) -> None:
    own = drawn(tmp_path / "own", 0, 1)
    (path,) = own.glob("dataset_*.json")
    content = json.loads(path.read_bytes())
    (own / "labelled").mkdir()
    first = content["images"][0]
    (own / first.get("filepath", "") / first["filename"]).rename(own / "labelled" / first["filename"])
    first["filepath"] = "labelled"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="cannot be distinguished"):
        prepared(config((own, folders[1])), tmp_path)


def test_config_refuses_shards_beside_sources_and_publishes_no_paths(folders: tuple[Path, ...]) -> None:
    with pytest.raises(ConfigError, match=r"data\.sources"):
        config(folders, "data.shards=shards")
    published = config(folders).data.without_places()
    assert [str(one.folder) for one in published.sources] == ["labelled", "labelled"] and published.label == (
        "own + labelled + labelled"
    )
    for wrong in ({"weight": 0}, {"confident_share": 1.5}, {"weights": 1}):
        with pytest.raises(CapPruneError):
            config(folders, **wrong)
