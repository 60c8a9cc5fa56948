from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capprune.data.captions import load_caption_set
from capprune.data.importing import ImportSettings, import_data
from capprune.data.photos import open_photos
from capprune.data.split_shares import parse_share, parse_shares
from capprune_runtime.errors import DataError, UsageError


def photo(seed: int) -> bytes:
    stream = BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "a").mkdir(parents=True)
    rows = ["image,caption"]
    for number in range(10):
        (folder / "a" / f"{number}.png").write_bytes(photo(number))
        rows += [f"a/{number}.png,a dog {number}", f"a/{number}.png,a cat"]
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder


def imported(folder: Path, out: Path, **settings: object) -> dict[str, str]:
    import_data(folder, out, ImportSettings(**settings), cache=out.parent / "cache")  # type: ignore[arg-type]
    return {photo.name: photo.split for photo in load_caption_set(out).photos}


def test_import_writes_captions_splits_and_the_same_bytes(table: Path, tmp_path: Path) -> None:
    before = load_caption_set(table)
    after = imported(table, tmp_path / "out")
    assert after == {f"photos/{one.name}": one.split for one in before.photos}
    content = json.loads((tmp_path / "out" / "dataset_data.json").read_text())
    assert content["images"][0]["sentences"][0]["tokens"] == ["a", "dog", "0"]
    with open_photos(tmp_path / "out") as store:
        assert store.read("photos/a/3.png") == photo(3)
    assert not (tmp_path / "out" / "photos" / "a" / "3.png").is_symlink()


def test_import_links_where_asked(table: Path, tmp_path: Path) -> None:
    imported(table, tmp_path / "out", link=True)
    link = tmp_path / "out" / "photos" / "a" / "3.png"
    assert link.is_symlink() and link.read_bytes() == photo(3)


def test_import_makes_splits_by_the_shares_asked_for(table: Path, tmp_path: Path) -> None:
    splits = list(imported(table, tmp_path / "out", shares=parse_shares("50,50")).values())
    assert set(splits) == {"train", "val"}


@pytest.mark.parametrize(
    ("text", "shares"), [("80,10,10", (0.8, 0.1, 0.1)), ("9,1", (0.9, 0.1, 0)), ("2/1/1", (0.5, 0.25, 0.25))]
)
def test_shares_are_read_as_parts_of_their_sum(text: str, shares: tuple[float, ...]) -> None:
    assert parse_shares(text) == pytest.approx(shares)


@pytest.mark.parametrize("text", ["", "80", "80,0,20", "0,10", "a,b", "80,-1,21", "1,2,3,4", "nan,1"])
def test_shares_that_leave_train_or_val_empty_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shares"):
        parse_shares(text)


def test_broken_and_missing_photos_are_refused_or_left_out_and_counted(table: Path, tmp_path: Path) -> None:
    (table / "a" / "3.png").write_bytes(photo(3)[:100])
    (table / "a" / "4.png").unlink()
    with pytest.raises(DataError, match=r"(?s)do not exist.*1: a/4\.png.*--drop-broken"):
        imported(table, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = import_data(table, tmp_path / "out", ImportSettings(drop_broken=True), cache=tmp_path / "cache")
    assert {entry.what: len(entry.names) for entry in done.left_out} == {
        "photos that do not exist": 1,
        "photos that cannot be decoded": 1,
    }
    assert len(load_caption_set(tmp_path / "out").photos) == 8


def test_names_that_differ_in_capitals_only_get_names_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number, name in enumerate(("X.png", "x.png", "y.png")):
        (folder / name).write_bytes(photo(number))
    (folder / "c.csv").write_text("image,caption\nX.png,one\nx.png,two\ny.png,three\n")
    done = import_data(folder, tmp_path / "out", ImportSettings(), cache=tmp_path / "cache")
    names = {one.captions: one.name for one in load_caption_set(tmp_path / "out").photos}
    assert names == {("one",): "photos/X.png", ("two",): "photos/x-2.png", ("three",): "photos/y.png"}
    assert done.left_out[0].names == ("x.png is now x-2.png",)


def test_photos_of_tar_files_become_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "val"):
        with tarfile.open(tmp_path / "data" / f"{split}.tar", "w") as tar:
            for name, content in (("0.png", photo(split == "val")), ("0.txt", b"a dog")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    after = imported(tmp_path / "data", tmp_path / "out", link=True)
    assert after == {"photos/train.tar/0.png": "train", "photos/val.tar/0.png": "val"}
    assert (tmp_path / "out" / "photos" / "val.tar" / "0.png").read_bytes() == photo(1)


def test_import_into_a_folder_that_holds_something_is_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="something here already"):
        imported(table, tmp_path / "out")


def test_parquet_with_photos_inside_is_imported(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "data" / "data").mkdir(parents=True)
    for split, numbers in (("train", range(5)), ("validation", range(5, 8))):
        rows = {
            "image": [{"bytes": photo(number), "path": None} for number in numbers],
            "caption": [[f"a dog {number}", "a cat"] for number in numbers],
        }
        path = tmp_path / "data" / "data" / f"{split}-00000-of-00001.parquet"
        parquet.write_table(pyarrow.table(rows), path, row_group_size=2)
    after = imported(tmp_path / "data", tmp_path / "out")
    assert list(after.values()) == ["train"] * 5 + ["val"] * 3
    with open_photos(tmp_path / "out") as store:
        assert [store.read(name) for name in after] == [photo(number) for number in range(8)]


def test_val_is_taken_from_train_and_test_stays(table: Path, tmp_path: Path) -> None:
    rows = (table / "captions.csv").read_text().splitlines()
    splits = ["split", *("test" if number >= 8 else "train" for number in range(10) for _ in range(2))]
    text = "\n".join(f"{row},{split}" for row, split in zip(rows, splits, strict=True))
    (table / "captions.csv").write_text(text)
    found = imported(table, tmp_path / "out", val_share=0.25)
    assert [name for name, split in found.items() if split == "test"] == ["photos/a/8.png", "photos/a/9.png"]
    assert list(found.values()).count("val") in (1, 2, 3) and list(found.values()).count("train") >= 5
    assert imported(table, tmp_path / "again", val_share=0.25) == found


def test_val_is_not_taken_where_there_is_one_or_no_train(table: Path, tmp_path: Path) -> None:
    imported(table, tmp_path / "three", shares=parse_shares("80,10,10"))
    for folder in (table, tmp_path / "three"):  # splits that follow from names are no training photos of the user's
        with pytest.raises(UsageError, match="--val") as caught:
            imported(folder, tmp_path / "out", val_share=0.1)
        assert "--shares" in str(caught.value) and not (tmp_path / "out").exists()


def test_share_of_val_is_a_percentage() -> None:
    assert parse_share("10") == parse_share("10%") == 0.1
    for text in ("0", "100", "ten", "-5", "nan"):
        with pytest.raises(UsageError, match="--val"):
            parse_share(text)
