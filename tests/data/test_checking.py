from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capprune.data import decoding
from capprune.data.checking import DataCheck, check_data, problem_lines
from capprune.data.decoding import fingerprint, look_at_all
from capprune.data.duplicates import find_duplicates
from capprune.data.photos import open_photos


def picture(seed: int, size: int = 64) -> Image.Image:
    """A smooth picture of its own: a few colours, scaled up."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def make(folder: Path, photos: dict[str, bytes], captions: dict[str, str] | None = None) -> Path:
    rows = ["image,caption"]
    for name, content in photos.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    rows += [f"{name},{text}" for name, text in (captions or {name: f"a dog {name[-5]}" for name in photos}).items()]
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder


def plain(count: int = 4) -> dict[str, bytes]:
    return {
        f"{split}/{number}.jpg": jpeg(picture(10 * at + number))
        for at, split in enumerate(("train", "val"))
        for number in range(count)
    }


def check(folder: Path, cache: Path) -> DataCheck:
    return check_data(folder, cache=cache)


def test_good_data_is_ready_and_the_next_command_trains(tmp_path: Path) -> None:
    found = check(make(tmp_path / "data", plain()), tmp_path / "cache")
    assert found.ready and found.verdict == "ready to train"
    assert "capprune train" in found.next_command and f"data.folder={tmp_path / 'data'}" in found.next_command
    assert [(one.split, one.photos) for one in found.splits] == [("train", 4), ("val", 4)]
    assert found.duplicates == found.missing == found.broken == ()


def test_everything_that_is_wrong_is_found_at_once(tmp_path: Path) -> None:
    photos = plain()
    photos["train/0.jpg"] = photos["train/0.jpg"][:200]
    photos["train/1.jpg"] = b""
    photos["val/0.jpg"] = b"no photo"
    folder = make(tmp_path / "data", photos, dict.fromkeys([*photos, "val/gone.jpg"], "a dog"))
    found = check(folder, tmp_path / "cache")
    assert not found.ready
    assert [name for name, _ in found.broken] == ["train/0.jpg", "train/1.jpg", "val/0.jpg"]
    assert found.missing == (("val/gone.jpg", None),)
    assert found.verdict == "not ready to train: 1 photo missing, 3 photos that cannot be decoded"
    assert found.next_command.endswith("--drop-broken")
    lines = problem_lines(found, 2)
    assert sum(line.startswith("cannot be decoded: ") for line in lines) == 3
    assert "cannot be decoded: 1 more; --report FILE.json writes all of them" in lines


def test_missing_photo_of_a_tar_is_shown_with_the_one_it_may_mean(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with tarfile.open(folder / "photos.tar", "w") as tar:
        for name, content in plain().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    make(folder, {}, dict.fromkeys(["train/0.jpg", "VAL/1.JPG"], "a dog"))
    assert check(folder, tmp_path / "cache").missing == (("VAL/1.JPG", "val/1.jpg"),)


def test_without_any_photo_there_the_next_step_is_to_put_them_there(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", {"other.jpg": jpeg(picture(1))}, {"a.jpg": "a dog", "b.jpg": "a cat"})
    assert check(folder, tmp_path / "cache").next_command.startswith("put the photos that the captions name into")


def test_a_caption_of_most_photos_is_named(tmp_path: Path) -> None:
    photos = plain(6)
    captions = {name: "a photo" if number % 2 else f"a dog {number}" for number, name in enumerate(photos)}
    found = check(make(tmp_path / "data", photos, captions), tmp_path / "cache")
    assert found.ready and found.verdict == 'ready to train, but 6 photos of 12 have the caption "a photo"'
    assert found.as_json()["shared_caption"] == "a photo"
    captions["train/1.jpg"] = "a cat"
    assert check(make(tmp_path / "data", photos, captions), tmp_path / "cache").verdict == "ready to train"


def test_one_photo_is_too_few_for_any_shares(tmp_path: Path) -> None:
    found = check(make(tmp_path / "data", {"1.jpg": jpeg(picture(1))}), tmp_path / "cache")
    assert not found.ready and found.next_command.startswith("add photos with captions to ")


def test_missing_split_is_a_problem_and_shares_are_the_way_out(tmp_path: Path) -> None:
    found = check(make(tmp_path / "data", {k: v for k, v in plain().items() if k[0] == "t"}), tmp_path / "cache")
    assert found.problems == ("no photo in the split val",)
    assert found.next_command.endswith("--val 10")
    only_val = {k: v for k, v in plain().items() if k.startswith("val")}
    assert check(make(tmp_path / "val", only_val), tmp_path / "cache").next_command.endswith("--shares 80,10,10")


def test_copies_across_splits_are_found_however_they_were_saved(tmp_path: Path) -> None:
    photos = plain(6)
    for number, copy in enumerate(
        (
            photos["train/0.jpg"],
            jpeg(picture(1), 40),
            jpeg(picture(2).resize((150, 40)), 80),
            jpeg(picture(3).point(lambda value: min(255, int(value * 1.08)))),
        )
    ):
        photos[f"val/copy{number}.jpg"] = copy
    photos["train/twin.jpg"] = photos["train/5.jpg"]
    found = check(make(tmp_path / "data", photos), tmp_path / "cache")
    across = [group for group in found.duplicates if group.across_splits]
    assert [[name for name, _ in group.photos] for group in across] == [
        [f"train/{number}.jpg", f"val/copy{number}.jpg"] for number in range(4)
    ]
    assert [group.same_bytes for group in across] == [True, False, False, False]
    assert [[name for name, _ in group.photos] for group in found.duplicates if not group.across_splits] == [
        ["train/5.jpg", "train/twin.jpg"]
    ]
    assert found.ready and found.verdict == "ready to train, but 4 photos found in more than one split"


def test_hashes_agree_with_a_comparison_of_every_pair() -> None:
    looks = {}
    for number in range(150):
        rgb = np.asarray(picture(number // 3).point(lambda value, by=number % 3: min(255, value + 3 * by)))
        looks[str(number)] = decoding.Look(str(number), *fingerprint(rgb))
    groups = find_duplicates(looks, dict.fromkeys(looks, "train"))
    assert [[int(name) for name, _ in group.photos] for group in groups] == [
        [n, n + 1, n + 2] for n in range(0, 150, 3)
    ]


def test_second_check_decodes_only_what_has_changed(tmp_path: Path) -> None:
    folder, cache = make(tmp_path / "data", plain()), tmp_path / "cache"
    assert (check(folder, cache).decoded, check(folder, cache).from_cache) == (8, 8)
    path = folder / "train" / "0.jpg"
    broken = b"x" * path.stat().st_size
    path.write_bytes(broken)
    os.utime(path, ns=(1, 1))
    again = check(folder, cache)
    assert (again.decoded, again.from_cache) == (1, 7)
    assert [name for name, _ in again.broken] == ["train/0.jpg"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": 1}', b'{"version": 1, "photos": {"a": 3}}', b"\xff"])
def test_damaged_cache_is_made_anew(tmp_path: Path, content: bytes) -> None:
    folder, cache = make(tmp_path / "data", plain()), tmp_path / "cache"
    check(folder, cache)
    (path,) = (cache / "checks").glob("*.json")
    path.write_bytes(content)
    assert check(folder, cache).decoded == 8
    assert json.loads(path.read_text())["version"] == decoding.VERSION


def test_cache_that_cannot_be_written_costs_no_check(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    found = check(make(tmp_path / "data", plain()), tmp_path / "cache")
    assert found.ready and found.left_out[-1].names[0].startswith(str(tmp_path / "cache"))


def test_processes_find_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = {f"train/{number}.jpg": jpeg(picture(number)) for number in range(40)}
    folder = make(tmp_path / "data", {**photos, "train/broken.jpg": b"x"})
    with open_photos(folder) as store:
        alone = look_at_all(store, store.names(), cache=tmp_path / "a").by_name
        monkeypatch.setattr(decoding, "ALONE", 0)
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        together = look_at_all(store, store.names(), cache=tmp_path / "b")
    assert alone == together.by_name and together.from_cache == 0
    assert [name for name, look in alone.items() if look.error] == ["train/broken.jpg"]


def test_what_is_not_used_is_counted_and_named(tmp_path: Path) -> None:
    photos = {**plain(), "train/A.jpg": jpeg(picture(50)), "train/a.jpg": jpeg(picture(51))}
    folder = make(tmp_path / "data", photos)
    (folder / "extra.jpg").write_bytes(jpeg(picture(60)))
    (folder / "notes.md").touch()
    (folder / ".DS_Store").touch()
    left_out = {entry.what: entry.names for entry in check(folder, tmp_path / "cache").left_out}
    assert left_out["photos that no captions file names"] == ("extra.jpg",)
    assert left_out["other files, not read"] == ("notes.md",)
    assert left_out["hidden files"] == (".DS_Store",)
    assert ("train/A.jpg and train/a.jpg",) in left_out.values()
