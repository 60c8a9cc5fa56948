from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capprune.data.captions import CaptionedPhoto, load_caption_set, words
from capprune.data.left_out import LeftOut
from capprune_runtime.bundle.vocabulary import JOINERS
from capprune_runtime.errors import DataError, UsageError


def entry(filename: str, split: str = "train", raw: tuple[str, ...] = ("A dog.",), **more: Any) -> dict[str, Any]:
    return {"filename": filename, "split": split, "sentences": [{"raw": each} for each in raw], **more}


def write_karpathy(folder: Path, *entries: Any, name: str = "dataset_x.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"images": entries, "dataset": "x"}))
    return path


def write_coco(folder: Path, name: str, files: dict[int, str], said: list[tuple[int, str]]) -> Path:
    images = [{"id": number, "file_name": file} for number, file in files.items()]
    annotations = [{"id": at, "image_id": image, "caption": text} for at, (image, text) in enumerate(said)]
    path = folder / name
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_words_are_split_as_in_karpathys_files() -> None:
    assert words("A man's T-shirt, in 2 colours .") == ("a", "man", "s", "t", "shirt", "in", "2", "colours")
    assert words(" \n!") == ()
    assert words("naïve café") == ("naïve", "café")


@given(st.text())
def test_words_hold_only_letters_with_marks_and_digits_and_split_no_further(caption: str) -> None:
    said = words(caption)
    assert all(
        unicodedata.category(character)[0] in "LMN" or character in JOINERS for word in said for character in word
    )
    assert not any(character.isspace() for word in said for character in word)
    assert words(" ".join(said)) == said


@given(st.lists(st.text("abcxyz019", min_size=1)), st.text(" .,-'\"!?\n", min_size=1))
def test_words_come_back_from_whatever_separates_them(said: list[str], separator: str) -> None:
    assert words(separator.join(said)) == tuple(said)


def test_real_flickr8k_reads_whole(data_folder: Path) -> None:
    captions = load_caption_set(data_folder / "flickr8k")
    assert captions.name == "flickr8k"
    assert captions.splits == {"train": 6000, "val": 1000, "test": 1000}
    assert all(len(photo.captions) == 5 for photo in captions.photos)
    assert captions.split("train")[0] == captions.photos[0]
    assert captions.photos[0].captions[0] == "A black dog is running after a white dog in the snow ."


def test_real_flickr8k_splits_into_the_words_of_its_file(data_folder: Path) -> None:
    content = json.loads((data_folder / "flickr8k" / "dataset_flickr8k.json").read_text())
    for image in content["images"]:
        for sentence in image["sentences"]:
            assert list(words(sentence["raw"])) == sentence["tokens"]


def test_real_coco_captions_read_whole_and_print_nothing(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(data_folder / "coco_eval" / "captions_karpathy_val.json", tmp_path / "captions_val.json")
    captions = load_caption_set(tmp_path)
    assert captions.splits == {"val": 5000}
    assert sum(len(photo.captions) for photo in captions.photos) == 25010
    assert captions.photos[0].name == "COCO_val2014_000000184613.jpg"
    assert captions.photos[0].captions[0] == "A child holding a flowered umbrella and petting a yak."
    assert capsys.readouterr().out == ""


def test_restval_is_train_and_filepath_is_part_of_the_name(tmp_path: Path) -> None:
    write_karpathy(
        tmp_path,
        entry("1.jpg", "train", filepath="train2014"),
        entry("2.jpg", "restval", filepath="val2014"),
        entry("3.jpg", "test", raw=("One\n dog", "...", "two  dogs ")),
    )
    captions = load_caption_set(tmp_path)
    assert captions.split("train") == (
        CaptionedPhoto("train2014/1.jpg", "train", ("A dog.",)),
        CaptionedPhoto("val2014/2.jpg", "train", ("A dog.",)),
    )
    assert captions.split("test") == (CaptionedPhoto("3.jpg", "test", ("One dog", "two dogs")),)


def test_coco_files_are_splits_by_their_names(tmp_path: Path) -> None:
    write_coco(tmp_path, "captions_train2014.json", {1: "1.jpg"}, [(1, "A cat"), (1, "A black cat")])
    write_coco(tmp_path, "captions_val2017.json", {2: "2.jpg"}, [(2, "A bird")])
    write_coco(tmp_path, "captions_street_night.json", {1: "3.jpg"}, [(1, "A car")])
    captions = load_caption_set(tmp_path)
    assert captions.splits == {"street_night": 1, "train": 1, "val": 1}
    assert captions.split("train") == (CaptionedPhoto("1.jpg", "train", ("A cat", "A black cat")),)
    assert captions.name == tmp_path.name


def test_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this data folder does not exist"):
        load_caption_set(tmp_path / "nowhere")


def test_folder_without_captions_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").touch()
    with pytest.raises(
        UsageError, match=r"(?s)no layout that is known.*dataset_<name>\.json.*captions_<split>\.json.*1 \.txt file"
    ):
        load_caption_set(tmp_path)


def test_two_kinds_of_captions_are_refused_by_name(tmp_path: Path) -> None:
    write_karpathy(tmp_path, entry("1.jpg"))
    write_coco(tmp_path, "captions_val2014.json", {1: "1.jpg"}, [(1, "A cat")])
    with pytest.raises(UsageError, match=r"(?s)dataset_x\.json.*captions_val2014\.json.*--layout"):
        load_caption_set(tmp_path)


def test_two_karpathy_files_are_refused_by_name(tmp_path: Path) -> None:
    write_karpathy(tmp_path, entry("1.jpg"))
    write_karpathy(tmp_path, entry("2.jpg"), name="dataset_y.json")
    with pytest.raises(UsageError, match=r"dataset_x\.json, dataset_y\.json"):
        load_caption_set(tmp_path)


def test_empty_split_names_the_splits_there_are(tmp_path: Path) -> None:
    write_karpathy(tmp_path, entry("1.jpg"), entry("2.jpg"), entry("3.jpg", "val"))
    with pytest.raises(DataError, match=r"(?s)'test' is empty.*train \(2 photos\), val \(1 photos\)"):
        load_caption_set(tmp_path).split("test")


@pytest.mark.parametrize("kind", ["karpathy", "coco"])
def test_file_cut_off_anywhere_is_a_data_error(tmp_path: Path, kind: str) -> None:
    if kind == "karpathy":
        path = write_karpathy(tmp_path, entry("1.jpg", raw=("A café dog",)), entry("2.jpg"))
    else:
        path = write_coco(tmp_path, "captions_val.json", {1: "1.jpg"}, [(1, "A cat")])
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=path.name):
            load_caption_set(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"\xff\xfe",
        b'"text"',
        b"{}",
        b'{"images": {}}',
        b'{"images": [7]}',
        b'{"images": [{"filename": 1, "split": "train", "sentences": []}]}',
        b'{"images": [{"filename": "1.jpg", "split": "train", "sentences": [3]}]}',
        b'{"images": [{"filename": "1.jpg", "filepath": 5, "split": "train", "sentences": []}]}',
        b"[" * 100_000,
    ],
)
def test_json_that_is_no_karpathy_layout_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dataset_x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"dataset_x\.json"):
        load_caption_set(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b'{"images": [], "annotations": {}}',
        b'{"images": [{"id": 1}], "annotations": []}',
        b'{"images": [{"file_name": "1.jpg"}], "annotations": []}',
        b'{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"id": 1, "image_id": 1, "bbox": []}]}',
    ],
)
def test_json_that_is_no_coco_captions_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "captions_val.json").write_bytes(content)
    with pytest.raises(DataError, match=r"captions_val\.json"):
        load_caption_set(tmp_path)


@pytest.mark.parametrize("raw", [(), ("...", "")])
def test_photo_without_captions_is_left_out_and_counted(tmp_path: Path, raw: tuple[str, ...]) -> None:
    write_karpathy(tmp_path, entry("1.jpg"), entry("2.jpg", raw=raw), entry("3.jpg", raw=raw))
    captions = load_caption_set(tmp_path)
    assert [photo.name for photo in captions.photos] == ["1.jpg"]
    assert captions.left_out == (LeftOut("photos without captions", ("2.jpg", "3.jpg")),)
    assert captions.notes() == ("note: photos without captions: 2 (2.jpg, 3.jpg)",)


def test_caption_without_a_word_is_counted(tmp_path: Path) -> None:
    write_karpathy(tmp_path, entry("1.jpg", raw=("A dog", "...", "!")), entry("2.jpg"))
    captions = load_caption_set(tmp_path)
    assert captions.photos[0].captions == ("A dog",)
    assert captions.left_out == (LeftOut("captions without a word", ("1.jpg", "1.jpg")),)


def test_coco_photo_without_captions_is_left_out_and_counted(tmp_path: Path) -> None:
    write_coco(tmp_path, "captions_val.json", {1: "1.jpg", 22: "2.jpg"}, [(1, "A cat")])
    captions = load_caption_set(tmp_path)
    assert [photo.name for photo in captions.photos] == ["1.jpg"]
    assert captions.left_out == (LeftOut("photos without captions", ("2.jpg",)),)


def test_coco_captions_of_a_photo_that_is_not_listed_are_counted(tmp_path: Path) -> None:
    write_coco(tmp_path, "captions_val.json", {1: "1.jpg"}, [(1, "A cat"), (9, "A bird")])
    assert load_caption_set(tmp_path).left_out[0].names == ("captions_val.json, image_id 9",)


def test_two_photos_of_one_name_are_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, "captions_train.json", {1: "1.jpg"}, [(1, "A cat")])
    write_coco(tmp_path, "captions_val.json", {1: "1.jpg"}, [(1, "A cat")])
    with pytest.raises(DataError, match=r"(?s)two photos have one name.*1\.jpg"):
        load_caption_set(tmp_path)


def test_data_set_without_photos_is_refused(tmp_path: Path) -> None:
    write_karpathy(tmp_path)
    with pytest.raises(DataError, match="without photos"):
        load_caption_set(tmp_path)
