"""`capprune label`: photos without captions become a data set that a small model learns from."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import teachers
from PIL import Image

from capprune.data.captions import load_caption_set
from capprune.labelling.filters import Filters, other_language, repeats
from capprune.labelling.teacher import Generation, Label, open_teacher
from capprune_runtime.errors import UsageError
from cli.conftest import capprune

PHOTOS = 24


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "small-blip"
    teachers.save_blip(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "my photos"
    (folder / "more").mkdir(parents=True)
    for number in range(PHOTOS):
        colour = list(teachers.COLOURS)[number % 3]
        place = folder / ("more" if number % 4 == 0 else "") / f"{colour}-{number}.png"
        teachers.photo(colour, 1000 + number).save(place)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    return folder


@pytest.mark.slow
def test_photos_without_captions_become_a_model(blip: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "labelled"
    done = capprune("label", photos, "--teacher", f"hf:{blip}", "--shares", "60,20,20", "--out", out, "--json")
    assert done.code == 0, done.err
    found = done.document
    assert (found["teacher"], found["licence"], found["captions"]) == ("small-blip", "bsd-3-clause", PHOTOS)
    assert sum(found["splits"].values()) == found["generated"] == PHOTOS and len(found["splits"]) == 3
    assert "photos that cannot be read: 1 (broken.jpg" in done.err
    for photo in load_caption_set(out).photos:
        colour = Path(photo.name).name.split("-")[0]
        assert photo.captions == (f"a {colour} ball on the grass",) and (out / photo.name).is_file()
    assert not list(tmp_path.glob("*.jsonl"))

    config = tmp_path / "config.yaml"
    config.write_text(
        f"name: own\ndata: {{folder: {out}, minimum_count: 1, licence: my own photos}}\nencoder: {{size: 64}}\n"
        "decoder: {family: show_tell, embedding: 8, hidden: 16}\ntraining: {epochs: 1, validation_photos: 2}\n"
    )
    assert capprune("train", config, "--out", tmp_path / "run").code == 0
    assert capprune("export", tmp_path / "run", "--weights", "float32", "--out", tmp_path / "bundle").code == 0
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["data"]["licence"] == "my own photos; captions by small-blip (bsd-3-clause)"


@pytest.mark.slow
def test_interrupted_labelling_goes_on_and_ends_with_the_same_data_set(
    blip: Path, photos: Path, tmp_path: Path
) -> None:
    options = ["--teacher", f"hf:{blip}", "--batch", "1"]
    whole = tmp_path / "whole"
    assert capprune("label", photos, *options, "--out", whole).code == 0
    out, journal = tmp_path / "out", tmp_path / "out.labels.jsonl"
    command = [sys.executable, "-m", "capprune", "label", str(photos), *options, "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not journal.exists() or journal.read_text().count("\n") < 5):
            time.sleep(0.01)
        process.kill()
    assert not out.exists() and journal.exists()
    kept = journal.read_text()
    journal.write_text(kept + '{"photo": "cut o')
    other = capprune("label", photos, "--teacher", f"hf:{blip}", "--beam", 2, "--out", out)
    assert other.code == 2 and "another teacher or other options" in other.err
    again = capprune("label", photos, *options, "--out", out, "--json").document
    assert 0 < again["generated"] <= PHOTOS - kept.count('"labels"')
    assert (out / "dataset_my-photos.json").read_bytes() == (whole / "dataset_my-photos.json").read_bytes()


@pytest.mark.parametrize("kind", teachers.OTHERS)
def test_other_kinds_of_models_generate_captions_with_likelihoods(kind: str, tmp_path: Path) -> None:
    teachers.OTHERS[kind](tmp_path / kind)
    teacher = open_teacher(f"hf:{tmp_path / kind}", Generation(captions=2, beam=3, max_tokens=6))
    found = teacher.captions([teachers.photo("red", 1), teachers.photo("blue", 2, (64, 20))])
    assert [len(row) for row in found] == [2, 2] and teacher.licence is None
    for row in found:
        assert row[0].log_probability >= row[1].log_probability and 0 < row[0].confidence < 1
        assert len(row[0].text.split()) <= 6 and "<image>" not in row[0].text  # the question is not part of the answer
    assert teacher.captions([teachers.photo("red", 1)])[0][0].text == found[0][0].text


def test_likelihood_is_that_of_the_model(blip: Path) -> None:
    sure = open_teacher(f"hf:{blip}", Generation(beam=1)).captions([teachers.photo("green", 5)])[0][0]
    assert sure.text == "a green ball on the grass" and sure.confidence > 0.9
    first, second = open_teacher(f"hf:{blip}", Generation(captions=2)).captions([teachers.photo("green", 5)])[0]
    assert first.text == sure.text and first.confidence == pytest.approx(sure.confidence, abs=1e-3)
    assert second.confidence < first.confidence


def test_filters_say_why_a_caption_is_left_out() -> None:
    filters = Filters(least_words=3, most_words=6, least_confidence=0.5, language="en")
    good = Label("a dog runs on grass", -0.1)
    assert filters.refusal(good) is None
    for text, log_probability, why in (
        ("a dog", -0.1, "fewer than 3"),
        ("a dog and a cat on a bed", -0.1, "more than 6"),
        ("a red a red ball", -0.1, "repeat"),
        ("ein Hund läuft im Gras", -0.1, "another language (de)"),
        ("a dog runs on grass", -0.8, "confidence below 0.5"),
    ):
        assert why in str(filters.refusal(Label(text, log_probability))), text
    assert repeats(["the", "the"]) and not repeats(["a", "dog", "and", "a", "cat"])
    assert other_language("two cats", "en") is None  # too short to tell


def test_only_the_most_confident_share_is_kept(blip: Path, photos: Path, tmp_path: Path) -> None:
    options = ["--teacher", f"hf:{blip}", "--captions", 2, "--min-words", 1]
    every = capprune("label", photos, *options, "--out", tmp_path / "all", "--json").document
    half = capprune("label", photos, *options, "--keep", "50%", "--out", tmp_path / "half", "--json").document
    assert half["captions"] == round(every["captions"] / 2)
    confidences = {
        name: [
            sentence["confidence"]
            for image in json.loads((tmp_path / name / "dataset_my-photos.json").read_text())["images"]
            for sentence in image["sentences"]
        ]
        for name in ("all", "half")
    }
    assert min(confidences["half"]) >= sorted(confidences["all"])[len(confidences["all"]) // 2]


@pytest.mark.slow
def test_what_cannot_be_done_is_said_before_any_work(blip: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-model").mkdir()
    teacher = ("--teacher", f"hf:{blip}")
    for arguments, code, said in (
        ((photos, *teacher, "--out", tmp_path / "taken"), 2, "taken"),
        ((tmp_path / "none", *teacher, "--out", tmp_path / "new"), 2, "none"),
        ((tmp_path / "empty", *teacher, "--out", tmp_path / "new"), 4, "there are no photos"),
        ((photos, "--teacher", "blip", "--out", tmp_path / "new"), 2, "hf:"),
        ((photos, "--teacher", f"hf:{tmp_path / 'no-model'}", "--out", tmp_path / "new"), 2, "cannot be opened"),
        ((photos, *teacher, "--keep", "0%", "--out", tmp_path / "new"), 2, "--keep"),
        ((photos, *teacher, "--language", "klingon", "--out", tmp_path / "new"), 2, "--language"),
        ((photos, *teacher, "--min-words", 9, "--max-words", 4, "--out", tmp_path / "new"), 2, "--min-words"),
        ((photos, *teacher, "--max-words", 2, "--min-words", 1, "--out", tmp_path / "new"), 4, "no caption passes"),
    ):
        done = capprune("label", *arguments)
        assert done.code == code and said in done.err, done.err
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "taken" / "mine.txt").read_text() == "mine"


def test_weights_that_are_pickled_are_refused(tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "pickled"
    teachers.save_blip(folder, learns=False)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="cannot be opened"):
        open_teacher(f"hf:{folder}", Generation())


@pytest.mark.slow
def test_photos_can_be_linked_and_large_ones_are_made_smaller(blip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(3):
        teachers.photo("blue", number).resize((2400, 1800), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    out = tmp_path / "out"
    assert capprune("label", folder, "--teacher", f"hf:{blip}", "--link", "--out", out).code == 0
    assert all((out / "photos" / f"{number}.png").is_symlink() for number in range(3))
    assert {photo.captions[0] for photo in load_caption_set(out).photos} == {"a blue ball on the grass"}
