"""Every layout is checked and trained on as it is; the handed-over cases of layouts and of data behave as they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from layout_folders import COUNT, LAYOUTS, Drawn, base, draw

from capprune.config.reading import parse_config
from capprune.data.captions import load_caption_set
from capprune.data.checking import check_data
from capprune.data.photos import open_photos
from capprune.training.session import train_run

SMALL = {
    "encoder": {"size": 32},
    "decoder": {"embedding": 8, "hidden": 8, "attention": 8, "context": 8},
    "training": {"epochs": 1, "photos_per_batch": 4},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return draw(tmp_path_factory.mktemp("drawn") / "scenes")


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_read_checked_and_trained_on_as_it_is(drawn: Drawn, tmp_path: Path, name: str) -> None:
    layout, make = LAYOUTS[name]
    folder = tmp_path / name
    folder.mkdir()
    make(drawn, folder)
    captions = load_caption_set(folder)
    assert captions.layout == layout
    human = {base(photo): photo.captions for photo in drawn.photos}
    assert len(captions.photos) == sum(COUNT.values()) - (COUNT["test"] if name == "coco" else 0)
    for photo in captions.photos:
        expected = human[base(photo)]
        assert photo.captions == (expected if len(photo.captions) > 1 else expected[:1])
    if captions.splits_made:
        assert set(captions.splits) == set(COUNT)
    else:
        assert {split: captions.splits.get(split) for split in ("train", "val")} == {"train": 8, "val": 3}
        assert {base(photo): photo.split for photo in captions.photos}.items() <= {
            base(photo): photo.split for photo in drawn.photos
        }.items()
    with open_photos(folder) as store:
        for photo in captions.photos:
            original = next(one for one in drawn.photos if base(one) == base(photo))
            assert store.read(photo.name) == (drawn.folder / original.name).read_bytes()
    assert check_data(folder, cache=tmp_path / "cache").ready
    config = parse_config({**SMALL, "data": {"folder": str(folder), "minimum_count": 1}})
    assert train_run(config, tmp_path / "run", tmp_path / "cache").epoch == 0
