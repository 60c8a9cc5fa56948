"""Odd but usual inputs of every layout: byte-order marks, line ends, quotes, names, lists, duplicates."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest

from capprune.data.captions import CaptionSet, load_caption_set
from capprune_runtime.errors import CapPruneError, DataError, MissingExtra, UsageError


def folder(place: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


def photos(*names: str) -> dict[str, bytes]:
    return dict.fromkeys(names, b"")


def said(captions: CaptionSet) -> dict[str, tuple[str, ...]]:
    return {photo.name: photo.captions for photo in captions.photos}


def splits(captions: CaptionSet) -> dict[str, str]:
    return {photo.name: photo.split for photo in captions.photos}


def left_out(captions: CaptionSet) -> dict[str, tuple[str, ...]]:
    return {entry.what: entry.names for entry in captions.left_out}


TABLES = {
    "comma": "image,caption\n1.jpg,a dog\n1.jpg,a cat\n2.jpg,a bird\n",
    "crlf and mark": "\ufeffimage,caption\r\n1.jpg,a dog\r\n1.jpg,a cat\r\n2.jpg,a bird\r\n",
    "old macintosh": "image,caption\r1.jpg,a dog\r1.jpg,a cat\r2.jpg,a bird\r",
    "pipe": "image_name| comment_number| comment\n1.jpg| 0| a dog\n1.jpg| 1| a cat\n2.jpg| 0| a bird\n",
    "tab": "filename\ttext\n1.jpg\ta dog\n1.jpg\ta cat\n2.jpg\ta bird\n",
    "semicolon of excel": "sep=;\nImage;Caption\n1.jpg;a dog\n1.jpg;a cat\n2.jpg;a bird\n",
    "quoted": '"image","caption"\n"1.jpg","a dog"\n"1.jpg","a cat"\n"2.jpg","a bird"\n',
    "more columns": "id,caption,image\n7,a dog,1.jpg\n8,a cat,1.jpg\n9,a bird,2.jpg\n",
    "no header": "1.jpg,a dog\n1.jpg,a cat\n2.jpg,a bird\n",
    "no header, numbered": "1.jpg,0,a dog\n1.jpg,1,a cat\n2.jpg,0,a bird\n",
    "blank lines": "\nimage,caption\n\n1.jpg,a dog\n\n1.jpg,a cat\n2.jpg,a bird\n\n\n",
    "rows apart": "image,caption\n1.jpg,a dog\n2.jpg,a bird\n1.jpg,a cat\n",
    "names without ending": "image_id,caption\n1,a dog\n1,a cat\n2,a bird\n",
    "names with folders": "image,caption\nImages/1.jpg,a dog\n./1.jpg,a cat\nC:\\data\\2.jpg,a bird\n",
    "numbered columns": "image,caption_1,caption_2\n1.jpg,a dog,a cat\n2.jpg,a bird,\n",
    "urls": "url,caption\nhttps://x.org/1.jpg,a dog\nhttps://x.org/1.jpg,a cat\nhttps://x.org/a/2.jpg,a bird\n",
    "titles": "filepath\ttitle\n1.jpg\ta dog\n1.jpg\ta cat\n2.jpg\ta bird\n",
    "lists": 'image,captions\n1.jpg,"[\'a dog\', \'a cat\']"\n2.jpg,"[""a bird""]"\n',
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_table_of_any_form_gives_the_same_captions(tmp_path: Path, kind: str, encoding: str) -> None:
    text = TABLES[kind].removeprefix("\ufeff") if encoding == "utf-16" else TABLES[kind]
    folder(tmp_path, {"captions.csv": text.encode(encoding), **photos("1.jpg", "2.jpg")})
    captions = load_caption_set(tmp_path)
    assert captions.layout == "table" and captions.files == ("captions.csv",)
    assert said(captions) == {"1.jpg": ("a dog", "a cat"), "2.jpg": ("a bird",)}


JSON_TABLES = {
    "captions.jsonl": '{"image": "1.jpg", "caption": "a dog"}\n\n{"image": "1.jpg", "text": "a cat"}\r\n'
    '{"file_name": "2.jpg", "captions": ["a bird"]}\n',
    "all.json": '[{"image": "1.jpg", "caption": ["a dog", "a cat"]}, {"image": "2.jpg", "caption": "a bird"}]',
    "captions_all.json": '\ufeff{"1.jpg": ["a dog", "a cat"], "2.jpg": "a bird"}',
    "dataset.json": '[{"image": "1.jpg", "sentences": [{"raw": "a dog"}, {"raw": "a cat"}]}, '
    '{"image": "2.jpg", "caption": "a bird"}]',
    "TextCaps_0.1.json": '{"dataset_name": "textcaps", "data": [{"image_id": "1", "caption_str": "a dog", "question": ""}, '
    '{"image_id": "1", "caption_str": "a cat"}, {"image_id": "2", "caption_str": "a bird"}]}',
    "chat.json": '[{"id": "1", "image": "1.jpg", "conversations": [{"from": "human", "value": "<image> Describe."}, '
    '{"from": "gpt", "value": "a dog"}]}, {"image": "1.jpg", "messages": [{"role": "assistant", "content": "a cat"}]}, '
    '{"image": "2.jpg", "caption": "a bird"}]',
}


@pytest.mark.parametrize("name", JSON_TABLES)
def test_json_tables_are_read_by_what_they_hold(tmp_path: Path, name: str) -> None:
    folder(tmp_path, {name: JSON_TABLES[name], **photos("1.jpg", "2.jpg")})
    assert said(load_caption_set(tmp_path)) == {"1.jpg": ("a dog", "a cat"), "2.jpg": ("a bird",)}


def test_later_answers_of_a_conversation_are_counted(tmp_path: Path) -> None:
    turns = [{"from": who, "value": text} for who, text in (("gpt", "a dog"), ("human", "Where?"), ("gpt", "outside"))]
    content = json.dumps([{"image": "1.jpg", "conversations": turns}])
    captions = load_caption_set(folder(tmp_path, {**photos("1.jpg"), "chat.json": content}))
    assert said(captions) == {"1.jpg": ("a dog",)}
    assert left_out(captions)["captions in columns that are not read"][0].startswith("later answers of ")


def test_captions_in_columns_that_are_not_read_are_counted(tmp_path: Path) -> None:
    table = "image,text,caption\n1.jpg,sale 50 %,a dog\n2.jpg,,a cat\n"
    captions = load_caption_set(folder(tmp_path / "table", {**photos("1.jpg", "2.jpg"), "captions.csv": table}))
    assert said(captions) == {"1.jpg": ("a dog",), "2.jpg": ("a cat",)}
    (names,) = (left_out(captions)["captions in columns that are not read"],)
    assert len(names) == 1 and names[0].startswith("text of ") and names[0].endswith("line 2")
    sidecar = json.dumps({"caption": "a dog", "captions": ["a pup"], "title": ""})
    captions = load_caption_set(folder(tmp_path / "sidecar", {**photos("1.jpg"), "1.json": sidecar}))
    assert len(left_out(captions)["captions in columns that are not read"]) == 1


def test_what_is_no_caption_is_none(tmp_path: Path) -> None:
    rows = json.dumps([{"image": "1.jpg", "caption": "a dog"}, {"image": "2.jpg", "caption": float("nan")}])
    captions = load_caption_set(folder(tmp_path, {**photos("1.jpg", "2.jpg"), "captions.json": rows}))
    assert said(captions) == {"1.jpg": ("a dog",)} and left_out(captions) == {"photos without captions": ("2.jpg",)}


def test_names_of_splits_in_any_spelling_are_the_usual_ones(tmp_path: Path) -> None:
    table = "image,caption,split\n1.jpg,a dog,Training\n2.jpg,a cat,Test \n3.jpg,a bird,VALID\n4.jpg,a fox,fold 1\n"
    names = [f"{number}.jpg" for number in range(1, 5)]
    captions = load_caption_set(folder(tmp_path, {**photos(*names), "captions.csv": table}))
    assert list(captions.splits) == ["train", "test", "val", "fold 1"]


def test_json_object_of_names_without_endings_is_read(tmp_path: Path) -> None:
    files = {**photos("1.jpg", "2.jpg"), "captions.json": json.dumps({"1": ["a dog"], "2": "a cat"})}
    assert said(load_caption_set(folder(tmp_path, files))) == {"1.jpg": ("a dog",), "2.jpg": ("a cat",)}


def test_captions_keep_commas_quotes_and_pipes(tmp_path: Path) -> None:
    folder(tmp_path / "a", {"captions.txt": 'image,caption\n1.jpg,a "big" dog, running, here\n2.jpg,"one, ""two"""\n'})
    assert said(load_caption_set(tmp_path / "a")) == {
        "1.jpg": ('a "big" dog, running, here',),
        "2.jpg": ('one, "two"',),
    }
    folder(tmp_path / "b", {"results.csv": 'image_name| comment_number| comment\n1.jpg| 0| " a dog | cat\n'})
    assert said(load_caption_set(tmp_path / "b")) == {"1.jpg": ('" a dog | cat',)}


def test_row_of_flickr30k_without_a_delimiter_is_read_and_counted(tmp_path: Path) -> None:
    folder(tmp_path, {"results.csv": "image_name| comment_number| comment\n1.jpg| 3| a dog\n1.jpg| 4   A cat runs .\n"})
    captions = load_caption_set(tmp_path)
    assert said(captions) == {"1.jpg": ("a dog", "A cat runs .")}
    assert left_out(captions)["rows without a delimiter, read all the same"][0].endswith("results.csv, line 3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,caption\n1.jpg,"a dog\n2.jpg,a cat\n3.jpg,a bird\n', r"quote is not closed: .*line 2"),
        ("caption,image\na dog, running,1.jpg\n", r"(?s)too many cells: .*line 2.*caption, image"),
        ("image,caption\n1.jpg,a dog\n,a cat\n", r"row names no photo: .*line 3"),
        (b"image,caption\n1.jpg,a dog\n2.jpg,caf\xe9\n", r"(?s)not UTF-8: .*line 3.*0xe9.*iconv"),
        ("image,caption,split\n1.jpg,a dog,train\n1.jpg,a cat,val\n", r"(?s)in two splits: .*line 3 \(1\.jpg\).*train"),
    ],
)
def test_broken_table_is_refused_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    folder(tmp_path, {"captions.csv": text})
    with pytest.raises(DataError, match=message):
        load_caption_set(tmp_path)


def test_json_object_with_one_photo_twice_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"all.json": '{"1.jpg": "a dog", "1.jpg": "a cat"}'})
    with pytest.raises(DataError, match=r"named twice in one file: .*all\.json"):
        load_caption_set(tmp_path)


def test_split_column_table_names_and_folders_are_splits(tmp_path: Path) -> None:
    column = folder(tmp_path / "a", {"c.csv": "image,caption,split\n1.jpg,a,train\n2.jpg,a,validation\n3.jpg,a,test\n"})
    assert splits(load_caption_set(column)) == {"1.jpg": "train", "2.jpg": "val", "3.jpg": "test"}
    files = {f"{name}.csv": f"image,caption\n{at}.jpg,a\n" for at, name in enumerate(("train", "dev", "test"))}
    assert splits(load_caption_set(folder(tmp_path / "b", files))) == {
        "0.jpg": "train",
        "1.jpg": "val",
        "2.jpg": "test",
    }
    places = photos("train/1.jpg", "valid/1.jpg")
    table = {"c.csv": "image,caption\ntrain/1.jpg,a\nvalid/1.jpg,b\n", **places}
    assert splits(load_caption_set(folder(tmp_path / "c", table))) == {"train/1.jpg": "train", "valid/1.jpg": "val"}


def test_two_tables_that_are_no_splits_are_refused_by_name(tmp_path: Path) -> None:
    folder(tmp_path, {"a.csv": "image,caption\n1.jpg,a\n", "b.csv": "image,caption\n1.jpg,a\n"})
    with pytest.raises(UsageError, match=r"(?s)one data set.*a\.csv, b\.csv"):
        load_caption_set(tmp_path)


def test_splits_are_made_by_hashes_and_stay_when_photos_are_added(tmp_path: Path) -> None:
    rows = "".join(f"{number}.jpg,a dog\n" for number in range(1000))
    first = load_caption_set(folder(tmp_path / "a", {"c.csv": f"image,caption\n{rows}"}))
    more = load_caption_set(folder(tmp_path / "b", {"c.csv": f"image,caption\nnew.jpg,a dog\n{rows}"}))
    assert first.splits_made and "no splits" in first.notes()[0]
    assert splits(first).items() <= splits(more).items()
    assert 750 < first.splits["train"] < 850 and 70 < first.splits["val"] < 130


@pytest.mark.parametrize("count", range(3, 12))
def test_small_sets_get_every_split(tmp_path: Path, count: int) -> None:
    rows = "".join(f"{number}.jpg,a dog\n" for number in range(count))
    assert set(load_caption_set(folder(tmp_path, {"c.csv": f"image,caption\n{rows}"})).splits) == {
        "train",
        "val",
        "test",
    }


TOKENS = "1.jpg#0\ta dog\r\n1.jpg#1\ta cat\r\n2.jpg#0\ta bird\r\n3.jpg#0\ta cow\r\n4.jpg.1#0\ta ghost\r\n"


def test_token_file_takes_its_splits_from_lists_and_counts_the_rest(tmp_path: Path) -> None:
    lists = {
        "Flickr_8k.trainImages.txt": "1.jpg\r\n",
        "Flickr_8k.devImages.txt": "2.jpg",
        "Flickr_8k.testImages.txt": "9.jpg\n",
    }
    folder(tmp_path, {"Flickr8k.token.txt": TOKENS, "Flickr8k.lemma.token.txt": TOKENS, **lists})
    captions = load_caption_set(tmp_path)
    assert captions.files == ("Flickr8k.token.txt", *sorted(lists))
    assert splits(captions) == {"1.jpg": "train", "2.jpg": "val"}
    assert left_out(captions) == {
        "names that are not photos": ("4.jpg.1",),
        "photos that no split list names": ("3.jpg",),
        "photos of a split list without captions": ("9.jpg",),
    }


def test_photo_in_two_split_lists_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"results.token": TOKENS, "train.txt": "1\n2\n", "test.txt": "2\n3\n"})
    with pytest.raises(DataError, match=r"(?s)in two splits: .*train\.txt, line 2 \(2\).*test in test\.txt"):
        load_caption_set(tmp_path)


def test_token_file_of_another_name_and_form_is_read(tmp_path: Path) -> None:
    text = "1.jpg#zhc#0 一只狗\n1.jpg#zhc#1 一只猫\n2.jpg#zhc#0 一只鸟\n"
    files = {**photos("1.jpg", "2.jpg"), "flickr8kzhc.caption.txt": text, "readme.txt": "of Flickr8k"}
    captions = load_caption_set(folder(tmp_path, files))
    assert captions.layout == "token" and said(captions)["1.jpg"] == ("一只狗", "一只猫")


def test_token_line_without_a_number_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"results.token": "1.jpg#0\ta dog\n1.jpg a cat\n"})
    with pytest.raises(DataError, match=r"(?s)cannot be read: .*line 2.*photo\.jpg#0"):
        load_caption_set(tmp_path)


def coco(*images: str, start: int = 0) -> str:
    listed = [{"id": start + at, "file_name": name} for at, name in enumerate(images)]
    return json.dumps({"images": listed, "annotations": [{"image_id": i["id"], "caption": "a dog"} for i in listed]})


def test_coco_photos_of_one_name_are_told_apart_by_their_split(tmp_path: Path) -> None:
    files = {f"annotations/captions_{split}2014.json": coco("1.jpg") for split in ("train", "val")}
    folder(tmp_path, {**files, **photos("train2014/1.jpg", "val2014/1.jpg"), "annotations/instances_val2014.json": "{"})
    assert splits(load_caption_set(tmp_path)) == {"train2014/1.jpg": "train", "val2014/1.jpg": "val"}


def test_coco_members_that_are_odd_are_read_or_counted(tmp_path: Path) -> None:
    images = [{"id": "1", "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}, {"id": 2, "file_name": "2.jpg"}]
    texts = [(1, "a dog"), ("2", "a cat"), (2, None), (3, "a bird")]
    annotations = [{"image_id": image, "caption": text} for image, text in texts]
    content = json.dumps({"images": images, "annotations": annotations})
    captions = load_caption_set(folder(tmp_path, {**photos("1.jpg", "2.jpg"), "captions_train2017.json": content}))
    assert said(captions) == {"1.jpg": ("a dog",), "2.jpg": ("a cat",)}
    assert {what: len(names) for what, names in left_out(captions).items()} == {
        "captions that are not text": 1,
        "photos that their file lists twice": 1,
        "captions of photos that their file does not list": 1,
    }


@pytest.mark.parametrize(
    "sentence", [{"raw": "a dog"}, {"tokens": ["a", "dog"]}, "a dog"], ids=["raw", "tokens only", "text"]
)
def test_sentences_of_karpathy_are_read_in_any_form_and_splits_may_be_missing(tmp_path: Path, sentence: object) -> None:
    images = [{"filename": f"{number}.jpg", "sentences": [sentence]} for number in range(1, 4)]
    files = {**photos("1.jpg", "2.jpg", "3.jpg"), "dataset.json": json.dumps({"images": images})}
    captions = load_caption_set(folder(tmp_path / "made", files))
    assert said(captions)["1.jpg"] == ("a dog",) and captions.splits_made
    images[0]["split"] = "train"  # some have one: then a missing one is a fault
    with pytest.raises(DataError, match="no key 'split'"):
        load_caption_set(folder(tmp_path / "some", {**files, "dataset.json": json.dumps({"images": images})}))


def test_two_files_of_one_split_are_refused_and_not_merged(tmp_path: Path) -> None:
    folder(tmp_path, {"captions_train2014.json": coco("1.jpg"), "captions_train2017.json": coco("2.jpg", start=5)})
    with pytest.raises(UsageError, match=r"(?s)one split.*captions_train2014\.json, captions_train2017\.json"):
        load_caption_set(tmp_path)


@pytest.mark.parametrize("kind", ["table", "karpathy"])
def test_photo_under_another_spelling_is_found_and_counted(tmp_path: Path, kind: str) -> None:
    files = photos("IMG_1.JPG", unicodedata.normalize("NFD", "caf\u00e9.png"))
    names = ["img_1.jpg", "caf\u00e9.png"]
    if kind == "table":
        files["c.csv"] = ("image,caption\n" + "".join(f"{name},a dog\n" for name in names)).encode()
    else:
        images = [{"filename": name, "split": "train", "sentences": [{"raw": "a dog"}]} for name in names]
        files["dataset_x.json"] = json.dumps({"images": images}).encode()
    captions = load_caption_set(folder(tmp_path, files))
    assert [photo.name for photo in captions.photos] == ["IMG_1.JPG", unicodedata.normalize("NFD", "caf\u00e9.png")]
    assert len(left_out(captions)["photos found under another spelling"]) == 2


@pytest.mark.parametrize(
    ("written", "photo"), [("139", "000000000139.jpg"), ("139.jpg", "00139.png"), ("a%20b.jpg", "a b.jpg")]
)
def test_photo_whose_zeros_or_blanks_are_spelt_otherwise_is_found_and_counted(
    tmp_path: Path, written: str, photo: str
) -> None:
    captions = load_caption_set(
        folder(tmp_path, {**photos(photo), "captions.csv": f"image,caption\n{written},a dog\n"})
    )
    assert said(captions) == {photo: ("a dog",)}
    assert list(left_out(captions)) == ["photos found under another spelling"]


def test_two_photos_of_one_number_are_not_guessed_between(tmp_path: Path) -> None:
    files = {"0139.jpg": b"1", "139.png": b"2", "captions.csv": "image,caption\n00139.jpg,a dog\n"}
    assert said(load_caption_set(folder(tmp_path, files))) == {
        "00139.jpg": ("a dog",)
    }  # and data check says: not there


def test_captions_of_two_names_are_not_merged_into_one_photo(tmp_path: Path) -> None:
    for at, (one, other) in enumerate((("cats/1.jpg", "dogs/1.jpg"), ("1.png", "1.jpg"), ("dogs/1.jpg", "1.PNG"))):
        place = tmp_path / str(at)
        folder(place, {"c.csv": f"image,caption\n{one},a cat\n{other},a dog\n", **photos("dogs/1.jpg")})
        with pytest.raises(DataError, match=r"two names in the captions mean one photo"):
            load_caption_set(place)
    folder(tmp_path, {"c.csv": "image,caption\n1.jpg,a cat\ndogs/1.JPG,a dog\n1,a cow\n", **photos("dogs/1.jpg")})
    assert said(load_caption_set(tmp_path)) == {"dogs/1.jpg": ("a cat", "a dog", "a cow")}
    (tmp_path / "c.csv").write_text("image,caption\n2.jpg,a cat\n1.png,a dog\n1.jpg,a cow\n")
    with pytest.raises(DataError, match=r"two names in the captions mean one photo"):
        load_caption_set(tmp_path)


def test_copies_of_a_photo_are_one_photo_and_others_of_its_name_are_not(tmp_path: Path) -> None:
    table = {
        "k/results.csv": "image_name| comment_number| comment\n1.jpg| 0| a dog\n1.jpg| 1| a cow\n2.jpg| 0| a cat\n"
    }
    copies = {"k/p/1.jpg": b"one", "k/p/p/1.jpg": b"one", "k/p/2.jpg": b"two", "k/p/p/2.jpg": b"other"}
    captions = load_caption_set(folder(tmp_path, {**table, **copies}))
    assert [photo.name for photo in captions.photos] == ["k/p/1.jpg", "2.jpg"]
    found = left_out(captions)["photos that are in the folder more than once, the first used"]
    assert found == ("k/p/1.jpg = k/p/p/1.jpg",)


def test_vizwiz_leaves_out_rejected_captions_and_its_test_file(tmp_path: Path) -> None:
    said_of = [
        {"image_id": 1, "caption": "a dog", "is_rejected": False, "is_precanned": False},
        {"image_id": 1, "caption": "spam", "is_rejected": True, "is_precanned": False},
        {"image_id": 2, "caption": "Quality issues are too severe.", "is_rejected": False, "is_precanned": True},
    ]
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}]
    train = json.dumps({"images": images, "annotations": said_of})
    test = json.dumps({"images": images})
    folder(
        tmp_path,
        {"annotations/train.json": train, "annotations/val.json": coco("3.jpg"), "annotations/test.json": test},
    )
    captions = load_caption_set(tmp_path)
    assert said(captions) == {"1.jpg": ("a dog",), "3.jpg": ("a dog",)}
    found = left_out(captions)
    assert len(found["captions that their data set marks as rejected or precanned"]) == 2
    assert found["photos without captions"] == ("2.jpg",)
    assert found["annotation files without captions"] == ("annotations/test.json",)


def test_imagefolder_reads_one_table_or_one_a_split(tmp_path: Path) -> None:
    table = "file_name,label,text\ntrain/1.jpg,7,a dog\nvalidation/1.jpg,8,a cat\n"
    one = folder(tmp_path / "a", {"metadata.csv": table, **photos("train/1.jpg", "validation/1.jpg")})
    assert splits(load_caption_set(one)) == {"train/1.jpg": "train", "validation/1.jpg": "val"}
    files = {f"data/{split}/metadata.jsonl": '{"file_name": "1.jpg", "text": "a dog"}' for split in ("train", "test")}
    two = folder(tmp_path / "b", {**files, **photos("data/train/1.jpg", "data/test/1.jpg")})
    assert splits(load_caption_set(two)) == {"data/test/1.jpg": "test", "data/train/1.jpg": "train"}


def test_imagefolder_with_two_tables_in_one_folder_is_refused(tmp_path: Path) -> None:
    folder(
        tmp_path, {"metadata.csv": "file_name,text\n1.jpg,a\n", "metadata.jsonl": '{"file_name": "1.jpg", "text": "a"}'}
    )
    with pytest.raises(UsageError, match=r"(?s)two tables of metadata.*metadata\.csv, metadata\.jsonl"):
        load_caption_set(tmp_path)


@pytest.mark.parametrize("name", ["metadata.parquet", "data/train-00000-of-00001.parquet"])
def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=r"(?s)need pyarrow: .*\.parquet.*capprune\[parquet\]"):
        load_caption_set(folder(tmp_path, {name: b"PAR1", **photos("1.jpg")}))


def test_parquet_of_photos_is_imported_and_metadata_is_read(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    metadata = pyarrow.table({"file_name": ["1.jpg", "2.jpg"], "text": ["a dog", "a cat"]})
    place = folder(tmp_path / "a", photos("train/1.jpg", "train/2.jpg"))
    parquet.write_table(metadata, place / "train" / "metadata.parquet")
    assert said(load_caption_set(place)) == {"train/1.jpg": ("a dog",), "train/2.jpg": ("a cat",)}
    inside = pyarrow.table({"image": [{"bytes": b"x", "path": "1.jpg"}], "caption": [["a dog", "a cat"]]})
    (tmp_path / "b").mkdir()
    parquet.write_table(inside, tmp_path / "b" / "train-00000-of-00001.parquet")
    with pytest.raises(UsageError, match=r"(?s)lie inside.*capprune data import"):
        load_caption_set(tmp_path / "b")


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_webdataset_joins_equal_captions_and_tells_shards_apart(tmp_path: Path) -> None:
    same = [("0.jpg", b"x"), ("0.txt", b"a dog\na cat\n"), ("0.json", b'{"caption": "a dog"}'), ("0.cls", b"7")]
    write_tar(tmp_path / "train-000.tar", [*same, ("1.jpg", b"y"), ("1.txt", b"a bird")])
    write_tar(tmp_path / "val-000.tar", [*same, ("lost.txt", b"a ghost")])
    captions = load_caption_set(tmp_path)
    assert said(captions) == {
        "train-000.tar/0.jpg": ("a dog", "a cat"),
        "1.jpg": ("a bird",),
        "val-000.tar/0.jpg": ("a dog", "a cat"),
    }
    assert captions.splits == {"train": 2, "val": 1}
    assert left_out(captions)["texts in tar files without a photo"] == ("val-000.tar/lost",)
    assert left_out(captions)["members of tar files ending in .cls"] == ("train-000.tar/0.cls", "val-000.tar/0.cls")


def test_webdataset_with_one_member_twice_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", [("0.jpg", b"x"), ("0.txt", b"a dog"), ("0.txt", b"a cat")])
    with pytest.raises(DataError, match=r"two members of one name: .*train\.tar"):
        load_caption_set(tmp_path)


def test_texts_beside_photos_or_in_a_folder_of_their_own(tmp_path: Path) -> None:
    beside = {
        "1.txt": "\ufeffa dog\r\n\r\na cat\r\n",
        "2.jpg.txt": "a bird",
        "3.caption": "a cow",
        "4.json": '{"caption": "a hen"}',
    }
    folder(tmp_path / "a", {**beside, **photos("1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"), "readme.txt": "hello"})
    captions = load_caption_set(tmp_path / "a")
    assert said(captions) == {
        "1.jpg": ("a dog", "a cat"),
        "2.jpg": ("a bird",),
        "3.jpg": ("a cow",),
        "4.jpg": ("a hen",),
    }
    assert left_out(captions) == {"photos without captions": ("5.jpg",)}
    folder(tmp_path / "b", {"texts/1.txt": "a dog", "texts/2.txt": "a cat", **photos("images/1.jpg", "images/2.jpg")})
    assert said(load_caption_set(tmp_path / "b")) == {"images/1.jpg": ("a dog",), "images/2.jpg": ("a cat",)}


def test_labels_of_an_object_detector_are_no_captions(tmp_path: Path) -> None:
    files = {**photos("images/1.jpg", "images/2.jpg"), "labels/1.txt": "0 0.5 0.5 1 1\n", "labels/2.txt": "3 .1 .1 1 1"}
    with pytest.raises(UsageError, match=r"in no layout that is known"):
        load_caption_set(folder(tmp_path, files))
    captions = load_caption_set(folder(tmp_path, {"labels/2.txt": "a dog"}))
    assert said(captions)["images/2.jpg"] == ("a dog",)


def test_text_that_two_photos_share_is_counted(tmp_path: Path) -> None:
    folder(tmp_path, {"1.txt": "a dog", **photos("1.jpg", "1.png")})
    captions = load_caption_set(tmp_path)
    assert said(captions) == {"1.jpg": ("a dog",), "1.png": ("a dog",)}
    assert left_out(captions) == {"texts that two photos share, read for both": ("1.txt (1.jpg and 1.png)",)}


@pytest.mark.parametrize(
    ("files", "found", "help_"),
    [
        (["a.xlsx", "b.xlsx", "c.xlsx", *(f"{n}.jpg" for n in range(10))], "3 .xlsx files and 10 photos", "soffice"),
        (["1.jpg", "2.jpg"], "2 photos", "captions.csv"),
        (["1.tar.gz", "2.tar.gz"], "2 .gz files and no photos", "for f in "),
        (["photos.zip"], "1 .zip file and no photos", "unzip"),
        (["photos.tar.gz", "notes.md"], "1 .md file, 1 .gz file and no photos", "tar -xzf"),
        (["cats/1.jpg", "dogs/2.jpg", "labels.xml"], "1 .xml file and 2 photos", "1.jpg with 1.txt"),
        ([], "no photos", "give the folder"),
    ],
)
def test_unknown_layout_is_described_with_the_command_that_helps(
    tmp_path: Path, files: list[str], found: str, help_: str
) -> None:
    folder(tmp_path, photos(*files))
    with pytest.raises(UsageError) as raised:
        load_caption_set(tmp_path)
    assert raised.value.found == found
    assert help_ in f"{raised.value.expected} {raised.value.hint}"


def test_table_with_other_columns_is_shown_with_its_header(tmp_path: Path) -> None:
    folder(tmp_path, {"labels.csv": "id,bbox\n1,2\n", **photos("1.jpg")})
    with pytest.raises(UsageError, match=r"labels\.csv has 'id,bbox'"):
        load_caption_set(tmp_path)


def test_several_layouts_are_refused_and_one_can_be_chosen(tmp_path: Path) -> None:
    folder(tmp_path, {"c.csv": "image,caption\n1.jpg,a dog\n", "results.token": "1.jpg#0\ta cat\n", **photos("1.jpg")})
    with pytest.raises(UsageError, match=r"(?s)results\.token.*c\.csv.*--layout token"):
        load_caption_set(tmp_path)
    assert said(load_caption_set(tmp_path, "table")) == {"1.jpg": ("a dog",)}
    assert said(load_caption_set(tmp_path, "token")) == {"1.jpg": ("a cat",)}
    with pytest.raises(UsageError, match=r"(?s)no such layout: --layout.*karpathy"):
        load_caption_set(tmp_path, "excel")
    with pytest.raises(UsageError, match="no COCO captions"):
        load_caption_set(tmp_path, "coco")


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl", "c.json", "results.token", "metadata.csv", "1.json"])
@pytest.mark.parametrize("content", [b"", b"\xff", b"\0\0\0", b"[", b'{"a": ', b"[" * 100_000, b"1.jpg", b"\n\n"])
def test_rubbish_is_an_error_of_the_user_in_every_layout(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(CapPruneError) as raised:
        load_caption_set(folder(tmp_path, {name: content, **photos("1.jpg")}))
    assert raised.value.exit_code in (2, 4)
