"""Every layout is checked and trained on as it is; the handed-over cases of layouts and of data behave as they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from layout_folders import COUNT, LAYOUTS, Drawn, base, draw

from capprune.cli.train import train
from capprune.config.reading import parse_config
from capprune.data.captions import load_caption_set
from capprune.data.checking import check_data
from capprune.data.photos import open_photos

SMALL = {
    "encoder": {"size": 32},
    "decoder": {"embedding": 8, "hidden": 8, "attention": 8, "context": 8},
    "training": {"epochs": 1, "photos_per_batch": 4},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return draw(tmp_path_factory.mktemp("drawn") / "scenes")


def case_folder(name: str) -> Path:
    cases = os.environ.get("CAPPRUNE_CASES")
    if not cases:
        pytest.skip("CAPPRUNE_CASES is not set")
    folder = Path(cases) / name
    if not (folder / "case.txt").is_file():
        pytest.skip(f"there is no {name}/case.txt under CAPPRUNE_CASES ({cases})")
    return folder


def cases_of(name: str) -> list[str]:
    folder = Path(os.environ.get("CAPPRUNE_CASES") or "nowhere") / name
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ["absent"]


def check(folder: Path, cache: Path, *options: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "capprune", "data", "check", str(folder), *options]
    environment = {**os.environ, "CAPPRUNE_CACHE": str(cache), "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


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
    assert train(config, tmp_path / "run", tmp_path / "cache").epoch == 0


@pytest.mark.parametrize("name", cases_of("f07-layouts"))
def test_case_of_a_layout(tmp_path: Path, name: str) -> None:
    folder = case_folder("f07-layouts") / name
    code, out, err = check(folder, tmp_path, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["ready"] and document["missing"] == document["broken"] == []
    one_a_photo = name.startswith(("hf_", "webdataset"))
    photos = 32 if name == "coco_official" else 40
    assert sum(split["photos"] for split in document["splits"]) == photos
    assert sum(split["captions"] for split in document["splits"]) == (1 if one_a_photo else 5) * photos


def test_case_of_broken_photos_names_all_of_them(tmp_path: Path) -> None:
    folder = case_folder("w01-bad-photos-in-data") / "badphotos"
    code, out, _ = check(folder, tmp_path)
    assert code == 4
    broken = [line for line in out.splitlines() if line.startswith("cannot be decoded: ")]
    assert len(broken) == 4
    assert "not ready to train: 4 photos" in out and "--drop-broken" in out.splitlines()[-1]


def test_case_of_a_photo_without_captions_leaves_it_out_and_counts_it(tmp_path: Path) -> None:
    folder = case_folder("w04-coco-uncaptioned") / "coco_uncaptioned"
    code, out, _ = check(folder, tmp_path)
    assert code == 0 and "photos without captions: 1 (p/scene-00002.png)" in out
