"""Nothing is skipped, overwritten, merged, dropped or reused without a word: the handed-over cases, and others of their kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from layout_folders import COUNT, Drawn, draw, flickr8k_kaggle
from PIL import Image

from capprune.config.reading import parse_config
from capprune.data.words import words
from capprune.training.caption_tokens import caption_tokens, token_notes
from capprune_runtime.atomic import write_text


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return draw(tmp_path_factory.mktemp("drawn") / "scenes")


def capprune(*arguments: object, **environment: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "capprune", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_limits_without_a_reference_are_refused(drawn: Drawn) -> None:
    for options in (("--max-drop", "2%"), ("--also", "nothing"), ("--also", "onnxruntime"), ("--max-drop", "0.5")):
        code, out, err = capprune("validate", "--data", drawn.folder, "--limit", 2, *options)
        assert code == 2 and out == "" and options[0] in err and "--reference RUN" in err


def test_python_of_no_device_is_refused(drawn: Drawn) -> None:
    code, out, err = capprune("validate", "--data", drawn.folder, "--limit", 2, "--python", "/usr/bin/python3")
    assert code == 2 and out == "" and "--device ssh:USER@HOST" in err


def test_pictures_of_photos_of_one_name_are_both_there(tmp_path: Path) -> None:
    for folder, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (64, 64), colour).save(tmp_path / folder / "x.jpg")
    code, _, err = capprune("caption", tmp_path / "a", tmp_path / "b", "--explain", tmp_path / "out", "--beam", 1)
    assert code == 0, err
    pictures = sorted((tmp_path / "out").iterdir())
    assert len(pictures) == 2 and all(picture.stem.endswith(("_a_x", "_b_x")) for picture in pictures)
    assert str(pictures[0]) in err and "several photos are called x" in err


def test_photo_is_not_replaced_by_its_picture(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "x.png")
    before = (tmp_path / "x.png").read_bytes()
    code, _, err = capprune("caption", tmp_path / "x.png", "--explain", tmp_path)
    assert code == 2 and "another file here already" in err
    assert (tmp_path / "x.png").read_bytes() == before


def test_check_writes_a_report_that_replaces_no_other_file(drawn: Drawn, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    cache = {"CAPPRUNE_CACHE": str(tmp_path / "cache")}
    code, out, err = capprune("data", "check", drawn.folder, "--report", report, **cache)
    assert code == 0 and f"report: {report}" in out, err
    assert out.splitlines()[-1].startswith("next: capprune train ")
    document = json.loads(report.read_text())
    assert document["kind"] == "data check" and document["ready"] and document["decoded"] == sum(COUNT.values())
    code, out, _ = capprune("data", "check", drawn.folder, "--report", report, "--json", **cache)
    assert code == 0 and json.loads(out)["from_cache"] == sum(COUNT.values())
    assert json.loads(report.read_text())["from_cache"] == sum(COUNT.values())
    write_text(report, '{"mine": 1}')
    code, out, err = capprune("data", "check", drawn.folder, "--report", report, **cache)
    assert code == 2 and out == "" and "this file exists and is not a report" in err
    assert report.read_text() == '{"mine": 1}'


def test_import_says_what_it_made_and_left_out(drawn: Drawn, tmp_path: Path) -> None:
    (tmp_path / "kaggle").mkdir()
    flickr8k_kaggle(drawn, tmp_path / "kaggle")
    (tmp_path / "kaggle" / "Images" / "scene-00000.png").write_bytes(b"broken")
    out = tmp_path / "out"
    cache = {"CAPPRUNE_CACHE": str(tmp_path / "cache")}
    code, _, err = capprune("data", "import", tmp_path / "kaggle", "--out", out, **cache)
    assert code == 4 and "--drop-broken" in err and not out.exists()
    code, stdout, err = capprune("data", "import", tmp_path / "kaggle", "--out", out, "--drop-broken", **cache)
    assert code == 0 and f"next: capprune data check {out}" in stdout
    assert "photos that cannot be decoded: 1 (Images/scene-00000.png" in err and "has no splits: made by hashes" in err
    code, stdout, _ = capprune("data", "check", out, **cache)
    assert code == 0 and "ready to train" in stdout


def test_training_says_what_it_left_out_and_took_from_the_cache(drawn: Drawn, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    flickr8k_kaggle(drawn, tmp_path / "data")
    with (tmp_path / "data" / "captions.txt").open("a") as file:
        file.write("Images/none.jpg,...\n")
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data: {{folder: {tmp_path / 'data'}, minimum_count: 1, licence: no}}\nencoder: {{size: 32}}\n"
        "decoder: {embedding: 8, hidden: 8, attention: 8, context: 8}\ntraining: {epochs: 1, photos_per_batch: 4}\n"
    )
    code, _, err = capprune("train", config, "--out", tmp_path / "a", "--cache", tmp_path / "cache")
    assert code == 0 and "photos without captions: 1 (Images/none.jpg)" in err and "from the cache" not in err
    assert "no splits: made by hashes" in err and "licence: 'no'" in (tmp_path / "a" / "config.yaml").read_text()
    code, _, err = capprune(
        "train", config, "training.epochs=2", "--out", tmp_path / "b", "--cache", tmp_path / "cache"
    )
    assert code == 0 and "photos from the cache" in err


@pytest.mark.parametrize(
    "command",
    [("caption", "p.jpg", "--out", "a.csv", "--out=b.csv"), ("data", "check", "x", "--layout", "coco", "--layout", "token"),
     ("train", "c.yaml", "--out=a", "--out", "b"), ("validate", "--data", "x", "--limit", "1", "--data", "y")],
)  # fmt: skip
def test_an_option_that_is_given_twice_is_refused(command: tuple[str, ...]) -> None:
    code, out, err = capprune(*command)
    assert code == 2 and out == "" and "an option is given twice" in err


def test_the_runtime_refuses_them_too_and_writes_documents_only(ready: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "capprune_runtime", "run", str(ready), str(tmp_path)]
    for options, said in (
        (["--limit", "1", "--limit=2"], "given twice: --limit"),
        (["--out", "t.csv"], "a .json file"),
    ):
        done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 2 and said in done.stderr and not list(tmp_path.glob("*.csv"))


def test_a_data_set_is_not_imported_into_itself(drawn: Drawn) -> None:
    code, out, err = capprune("data", "import", drawn.folder, "--out", drawn.folder / "new")
    assert code == 2 and out == "" and "would be inside the old one" in err and not (drawn.folder / "new").exists()


def test_options_that_may_repeat_still_do() -> None:
    code, _, err = capprune("sweep", "none.yaml", "--grid", "a=1", "--grid", "b=2", "--out", "s")
    assert code == 2 and "there is no such config" in err
    assert capprune("doctor", "--json", "--json")[0] == 0


@pytest.mark.parametrize(
    "command", [("data", "check", ""), ("inspect", ""), ("train", "", "--out", "r"), ("verify", "")]
)
def test_an_empty_path_is_not_the_current_folder(command: tuple[str, ...]) -> None:
    code, out, err = capprune(*command)
    assert code == 2 and out == "" and "must not be empty" in err


def test_a_report_without_data_has_no_split_to_choose(ready: Path, tmp_path: Path) -> None:
    code, out, err = capprune("report", ready, "--split", "val", "--out", tmp_path / "r.html")
    assert code == 2 and out == "" and "--split" in err and "--data FOLDER" in err


def test_pictures_of_explanations_are_not_captioned_as_photos(tmp_path: Path, ready: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "x.jpg")
    assert capprune("caption", tmp_path, "--explain", tmp_path / "lit", "--beam", 1)[0] == 0
    code, out, err = capprune("caption", tmp_path, "--beam", 1)
    assert code == 0 and out.count("\n") == 1 and "left out: 1 drawn by --explain" in err


@pytest.mark.slow
def test_true_is_no_number(drawn: Drawn, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    for line in (
        "training: {epochs: true}",
        "training: {learning_rate: true}",
        "data: {folder: x, minimum_count: false}",
    ):
        config.write_text(line + ("" if line.startswith("data") else f"\ndata: {{folder: {drawn.folder}}}\n"))
        code, _, err = capprune("train", config, "--out", tmp_path / "run")
        assert code == 2 and "invalid value" in err and ("'true'" in err or "'false'" in err)


def test_training_says_which_words_and_captions_it_cannot_learn(drawn: Drawn, tmp_path: Path) -> None:
    config = parse_config({"data": {"folder": str(drawn.folder), "minimum_count": 5, "maximum_tokens": 8}})
    captions = [text for photo in drawn.photos for text in photo.captions]
    tokens = caption_tokens(config, captions)
    rare, cut = token_notes(tokens, captions, config.data)
    long = sum(len(words(text)) > 8 for text in captions)
    assert cut == f"{long} of {len(captions)} training captions are longer than data.maximum_tokens=8 and are cut"
    different = len({word for text in captions for word in words(text)})
    assert rare.startswith(f"{different + 4 - len(tokens.vocabulary)} of {different} different words occur fewer than")
    everything = parse_config({"data": {"folder": "x", "minimum_count": 1, "maximum_tokens": 60}})
    assert token_notes(caption_tokens(everything, captions), captions, everything.data) == ()
