"""The metrics are right when they give the published scores of published captions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capprune.metrics import java, scores
from capprune.metrics.scores import Scores, score, score_tokenised, tokenize
from capprune_runtime.errors import CapPruneError, DataError, MissingExtra, UsageError

FILES = (
    *("lstm_sps0.975", "lstm_sps0.800", "lstm_sps0.975_cnnft", "lstm_sps0.800_cnnft"),
    *("gru_sps0.975", "gru_sps0.800", "gru_sps0.975_cnnft", "gru_sps0.800_cnnft"),
    *("updown_tiny3_sps0.975", "updown_tiny3_sps0.975_scst"),
)
METRICS = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr")

PHOTOS = {
    "a.jpg": ("a black dog runs", "the dog is running"),
    "b.jpg": ("two red balls on grass", "some balls lie on the grass"),
    "c.jpg": ("a boat on the sea", "one white boat"),
}
CAPTIONS = {"a.jpg": "a dog runs", "b.jpg": "two balls on grass", "c.jpg": "a boat"}


@pytest.fixture(scope="session")
def with_java() -> None:
    if java.java_command() is None:
        pytest.skip("no Java runs here")


@pytest.fixture
def without_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path))
    java.java_command.cache_clear()
    yield
    java.java_command.cache_clear()


@pytest.fixture(scope="session")
def coco_references(data_folder: Path) -> dict[str, list[str]]:
    """PTB-tokenised references by image id."""
    text = (data_folder / "coco_eval" / "captions_karpathy_test_ptb.json").read_text(encoding="utf-8")
    references: dict[str, list[str]] = json.loads(text)
    return references


def by_metric(scores: Scores) -> dict[str, float | None]:
    return dict(zip(METRICS, (*scores.bleu, scores.meteor, scores.rouge_l, scores.cider_d), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_published_scores_of_coco_captions_are_reproduced(
    name: str, data_folder: Path, coco_references: dict[str, list[str]], with_java: None
) -> None:
    folder = data_folder / "coco_eval"
    entries: list[dict[str, Any]] = json.loads((folder / "published_scores.json").read_text(encoding="utf-8"))
    [published] = [entry["published"] for entry in entries if entry["file"] == f"hypotheses/{name}.json"]
    answers = json.loads((folder / "hypotheses" / f"{name}.json").read_text(encoding="utf-8"))
    captions = [answer["caption"] for answer in answers]
    names = [str(answer["image_id"]) for answer in answers]
    hypotheses = dict(zip(names, tokenize(captions, "ptb"), strict=True))

    scores = score_tokenised(coco_references, hypotheses, tokenizer="ptb")

    assert scores.photos == 5000 == len(scores.per_photo_cider)
    for metric, value in by_metric(scores).items():
        assert value == pytest.approx(published[metric], abs=0.00051), metric  # published in three decimals


def test_raw_coco_references_through_ptb_are_those_handed_over(
    data_folder: Path, coco_references: dict[str, list[str]], with_java: None
) -> None:
    raw = json.loads((data_folder / "coco_eval" / "captions_karpathy_test.json").read_text(encoding="utf-8"))
    captions: dict[str, list[str]] = {}
    for annotation in raw["annotations"]:
        captions.setdefault(str(annotation["image_id"]), []).append(annotation["caption"])
    tokens = iter(tokenize([caption for own in captions.values() for caption in own], "ptb"))
    assert {photo: [next(tokens) for _ in own] for photo, own in captions.items()} == coco_references


@pytest.mark.slow
def test_human_captions_of_flickr8k_score_as_known(data_folder: Path, with_java: None) -> None:
    text = (data_folder / "flickr8k" / "dataset_flickr8k.json").read_text(encoding="utf-8")
    photos = {
        image["filename"]: [sentence["raw"] for sentence in image["sentences"]]
        for image in json.loads(text)["images"]
        if image["split"] == "test"
    }
    scores = score(
        {name: captions[1:] for name, captions in photos.items()},
        {name: captions[0] for name, captions in photos.items()},
    )
    assert scores.tokenizer == "ptb"
    expected = (0.6364, 0.4458, 0.3055, 0.2095, 0.2500, 0.4875, 0.7886)
    assert tuple(by_metric(scores).values()) == pytest.approx(expected, abs=0.00006)


def test_ptb_keeps_one_line_a_caption_whatever_it_holds(with_java: None) -> None:
    captions = ["A dog, running!", "", "two\nlines\r\nhere\u2028there", "  Café   AU lait ", "isn't it?", "..."]
    assert tokenize(captions, "ptb") == ["a dog running", "", "two lines here there", "café au lait", "is n't it", ""]
    assert tokenize([], "ptb") == []


def test_warnings_of_the_java_machine_are_no_captions(
    with_java: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:+UseStringDeduplication -Xmn2g -Xmx100m")
    assert tokenize(["A dog."], "ptb") == ["a dog"]
    assert capfd.readouterr() == ("", "")


def test_ptb_and_meteor_write_nothing_into_the_installed_package(with_java: None) -> None:
    folder = java.pycocoevalcap_folder()
    parts = [folder, folder / "tokenizer", folder / "meteor"]
    before = [(part.stat().st_mtime_ns, sorted(part.iterdir())) for part in parts]
    scores = score(PHOTOS, {**CAPTIONS, "a.jpg": ""}, tokenizer="ptb", meteor=True)
    assert scores.meteor is not None and 0 < scores.meteor < 1
    assert [(part.stat().st_mtime_ns, sorted(part.iterdir())) for part in parts] == before


def test_plain_tokenizer_takes_the_words_of_the_training_data() -> None:
    assert tokenize(["A T-shirt, size XL!", ""], "plain") == ["a t shirt size xl", ""]


def test_scoring_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    score(PHOTOS, CAPTIONS, tokenizer="plain", meteor=False)
    assert capfd.readouterr() == ("", "")


def test_per_photo_cider_follows_the_sorted_names_and_averages_to_the_whole() -> None:
    shuffled = dict(reversed(PHOTOS.items()))
    wrong_on_b = {**CAPTIONS, "b.jpg": "nothing of that"}
    scores = score(shuffled, wrong_on_b, tokenizer="plain", meteor=False)
    assert scores.per_photo_cider[1] == 0 < min(scores.per_photo_cider[0], scores.per_photo_cider[2])
    assert sum(scores.per_photo_cider) / 3 == pytest.approx(scores.cider_d)


def test_cider_alone_is_that_of_all_scores_with_the_plain_tokenizer(without_java: None) -> None:
    assert scores.cider_d(PHOTOS, CAPTIONS) == score(PHOTOS, CAPTIONS).cider_d > 0.5


def test_a_model_that_says_nothing_scores_zero() -> None:
    scores = score(PHOTOS, dict.fromkeys(PHOTOS, ""), tokenizer="plain", meteor=False)
    assert (*scores.bleu, scores.rouge_l, scores.cider_d) == pytest.approx((0.0,) * 6, abs=1e-6)


def test_auto_is_plain_without_java_and_says_why_there_is_no_meteor(without_java: None) -> None:
    scores = score(PHOTOS, CAPTIONS)
    assert (scores.tokenizer, scores.meteor, scores.meteor_reason) == ("plain", None, "no Java runs here")
    assert scores.as_json()["meteor_reason"] == "no Java runs here"


def test_auto_is_ptb_with_java(with_java: None) -> None:
    assert scores.chosen_tokenizer("auto") == "ptb"


@pytest.mark.parametrize("demand", [{"tokenizer": "ptb"}, {"tokenizer": "plain", "meteor": True}])
def test_demanding_java_without_java_says_what_to_install(without_java: None, demand: dict[str, Any]) -> None:
    with pytest.raises(MissingExtra, match="apt install"):
        score(PHOTOS, CAPTIONS, **demand)


def test_a_java_that_fails_is_reported_with_its_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "java"
    broken.write_text('#!/bin/sh\ncase "$*" in *-version) exit 0; esac\necho out of memory >&2\nexit 3\n')
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    java.java_command.cache_clear()
    try:
        with pytest.raises(CapPruneError, match="out of memory") as tokenizing:
            tokenize(["a dog"], "ptb")
        with pytest.raises(CapPruneError, match="out of memory"):
            java.meteor_score([["a dog"]] * 50_000, ["a dog"] * 50_000)
    finally:
        java.java_command.cache_clear()
    assert tokenizing.value.exit_code == 1


def test_a_java_that_knows_fewer_options_is_used_without_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "java"
    old.write_text('#!/bin/sh\ncase "$*" in *-Xlog*) exit 1; esac\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    java.java_command.cache_clear()
    try:
        command = java.java_command()
    finally:
        java.java_command.cache_clear()
    assert command == (str(old), *java.OPTIONS)


def test_an_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(UsageError, match="ptb, plain or auto"):
        score(PHOTOS, CAPTIONS, tokenizer="spacy")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ({}, {}, "no photos"),
        (PHOTOS, {"a.jpg": "a dog"}, "no caption to score: b.jpg, c.jpg"),
        ({"a.jpg": ("a dog",)}, CAPTIONS, "no reference captions: b.jpg, c.jpg"),
        ({**PHOTOS, "b.jpg": ()}, CAPTIONS, "no reference captions: b.jpg"),
        ({"a.jpg": ("… !",)}, {"a.jpg": "a dog"}, "contains a word"),
    ],
)
def test_photos_without_a_partner_are_refused(references: Any, hypotheses: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(references, hypotheses, tokenizer="plain")
