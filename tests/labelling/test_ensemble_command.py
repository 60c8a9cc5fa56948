"""`capprune ensemble`: several runs caption photos together, and a small model learns from the captions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import teachers
import torch

import capprune as api
from capprune.config.reading import parse_config
from capprune.data.captions import load_caption_set
from capprune.data.photos import open_photos
from capprune.ensembling import LONGEST_NAME, EnsembleTeacher, _named, load_ensemble
from capprune.metrics.scores import score
from capprune.trained import TrainedCaptioner
from capprune.training.prepare import MOST_LICENCE, _licence
from capprune.training.progress import Silent
from capprune.training.run import load_run, read_run
from capprune.training.session import train_run
from capprune_runtime.bundle.vocabulary import END, START
from capprune_runtime.errors import DataError, UsageError
from capprune_runtime.photo import decode_photo
from cli.conftest import capprune

COUNT = {"train": 12, "val": 6, "test": 2}
ALL_KEPT = {"min_words": 1, "max_words": 100}
SHOW_TELL = ("decoder.family=show_tell", "decoder.embedding=16", "decoder.hidden=32")
RETENTION = tuple(f"decoder.{key}" for key in ("family=retention", "width=32", "feed_forward=32", "heads=2", "key=8"))
MEMBERS = {  # runs of another family, seed, search and encoder each
    "plain": SHOW_TELL,
    "wide": (*RETENTION, "decoder.layers=2", "training.learning_rate=3e-3", "search.no_repeat_ngram=2"),
    "small photos": (*SHOW_TELL, "encoder.size=32", "training.seed=5", "search.no_repeat_ngram=3"),
}


@dataclass(frozen=True)
class World:
    data: Path
    runs: dict[str, Path]
    cache: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("ensemble")
    draw_balls(folder / "balls")
    own = {**MEMBERS, "other words": (*SHOW_TELL, "data.minimum_count=2", "training.epochs=1")}
    for name, overrides in own.items():
        train_run(config(folder / "balls", *overrides), folder / name, folder / "cache")
    return World(folder / "balls", {name: folder / name for name in own}, folder / "cache")


def draw_balls(folder: Path) -> None:
    """Photos of one colour each, with two captions; one word of them is rare."""
    folder.mkdir()
    entries = []
    for number, split in enumerate(split for split, count in COUNT.items() for _ in range(count)):
        colour = list(teachers.COLOURS)[number % 3]
        teachers.photo(colour, number).save(folder / f"{number}.png")
        end = "today" if number == 0 else "here"
        texts = [f"a {colour} ball on the grass", f"there is one {colour} ball {end}"]
        entries.append({"filename": f"{number}.png", "split": split, "sentences": [{"raw": text} for text in texts]})
    (folder / "dataset_balls.json").write_text(json.dumps({"dataset": "balls", "images": entries}))


def config(data: Path, *overrides: str) -> Any:
    tree = {
        "data": {"folder": str(data), "minimum_count": 1, "licence": "drawn"},
        "encoder": {"size": 64, "grid": 1},
        "training": {"epochs": 15, "photos_per_batch": 4, "learning_rate": 1e-2, "validation_photos": 4},
    }
    return parse_config(tree, overrides)


def members(world: World) -> list[Path]:
    return [world.runs[name] for name in MEMBERS]


def images(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("dataset_*.json")
    found: list[dict[str, Any]] = json.loads(file.read_text())["images"]
    return found


class Stopped(Silent):
    """Stops like Ctrl-C once some photos are captioned."""

    def __init__(self, after: int) -> None:
        self.after = after

    @contextmanager
    def bar(self, label: str) -> Iterator[Callable[[int, int], None]]:
        def tell(done: int, total: int) -> None:
            if done >= self.after:
                raise KeyboardInterrupt

        yield tell


@pytest.mark.parametrize("name", MEMBERS)
def test_ensemble_of_one_run_generates_that_runs_captions_token_by_token(name: str, world: World) -> None:
    run = load_run(world.runs[name])
    photos = load_caption_set(world.data).split("train")
    ensemble = load_ensemble([world.runs[name]])
    with open_photos(world.data) as store:
        names = [photo.name for photo in photos]
        alone = TrainedCaptioner(run).captions(names, store, 3)
        found = ensemble.search(ensemble.encode([decode_photo(store.read(one), one) for one in names]), 3)
    assert found.tokens == [alone[one].tokens for one in names]
    assert len(set(found.tokens)) > 2  # the runs have learned something


def test_confidence_is_that_of_the_mean_of_the_members_probabilities(world: World, tmp_path: Path) -> None:
    made = api.ensemble(members(world), data=world.data, out=tmp_path / "out", **ALL_KEPT).made
    assert made is not None and made.labelled.captions == COUNT["train"] and made.labelled.copied == COUNT["val"]
    runs = [load_run(folder) for folder in members(world)]
    (vocabulary,) = {run.vocabulary for run in runs}
    checked = 0
    with open_photos(world.data) as store:
        for image in images(tmp_path / "out")[:5]:
            (sentence,) = image["sentences"]
            tokens = [vocabulary.id(word) for word in sentence["raw"].split()]
            photo = store.read(image["filename"])
            likely = np.mean([_probabilities(run, photo, tokens) for run in runs], axis=0)
            assert sentence["confidence"] == pytest.approx(math.exp(np.log(likely).mean()), abs=2e-4)
            checked += 1
    assert checked == 5


@torch.inference_mode()
def _probabilities(run: Any, photo: bytes, tokens: list[int]) -> list[float]:
    """The probability of each word of a caption and of its end, in one run, as training computes it."""
    captioner = TrainedCaptioner(run)
    held, first = captioner._encode([_shown(run, photo)])
    state = run.model.decoder.begin(first, 1)
    found = []
    for place, (token, following) in enumerate(zip([START, *tokens], [*tokens, END], strict=True)):
        step = run.model.decoder.step(torch.tensor([token]), state, held)
        scores = step.scores[0].double()
        scores[[0, 1, 3]] = -torch.inf
        found.append(float(torch.softmax(scores, -1)[following]))
        state = run.model.decoder.advance(state, step, place)
    return found


def _shown(run: Any, photo: bytes) -> Any:
    from capprune_runtime.caption.inputs import decode_input

    return decode_input(photo, "photo", run.preprocessing)


def test_small_model_learns_from_the_captions_and_names_the_runs(world: World, tmp_path: Path) -> None:
    found = api.ensemble(members(world)[:2], data=world.data, out=tmp_path / "taught", **ALL_KEPT).as_json()
    assert found["data_set"]["splits"] == {"train": COUNT["train"], "val": COUNT["val"]}
    assert found["data_set"]["teacher"] == "an ensemble of plain and wide" and found["data_set"]["licence"] == "drawn"
    before, after = load_caption_set(world.data), load_caption_set(tmp_path / "taught")
    human = {Path(photo.name).name: photo.captions for photo in before.split("val")}
    assert {Path(photo.name).name: photo.captions for photo in after.split("val")} == human
    assert all(photo.confidence is None for photo in after.split("val"))
    assert all(len(photo.captions) == 1 and 0 < (photo.confidence or 0) <= 1 for photo in after.split("train"))
    own = config(
        tmp_path / "taught", "decoder.family=show_tell", "decoder.hidden=8", "training.epochs=1", "data.licence=mine"
    )
    train_run(own, tmp_path / "small", world.cache)
    licence = read_run(tmp_path / "small").config.data.licence
    assert licence == "mine; captions by an ensemble of plain and wide (drawn)"
    facts = json.loads(next((tmp_path / "taught").glob("*.json")).read_text())["labelled_by"]
    assert [run["name"] for run in facts["runs"]] == ["plain", "wide"] and facts["beam"] == 3


def test_photos_without_captions_get_splits_by_their_names(world: World, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, photo in enumerate(load_caption_set(world.data).split("train")):
        (photos / f"{number}.jpg").write_bytes((world.data / photo.name).read_bytes())
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    found = api.ensemble(
        members(world), photos=photos, out=tmp_path / "out", shares="50,25,25", link=True, **ALL_KEPT
    ).made
    assert found is not None and set(found.labelled.splits) == {"train", "val", "test"}
    assert found.labelled.captions == COUNT["train"]
    assert any("cannot be read" in str(entry) for entry in found.labelled.left_out)
    assert all((tmp_path / "out" / "photos" / f"{n}.jpg").is_symlink() for n in range(COUNT["train"]))


def test_interrupted_command_goes_on_and_ends_with_the_same_data_set(world: World, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": world.data, "batch": 3, **ALL_KEPT}
    whole, out = tmp_path / "whole", tmp_path / "out"
    api.ensemble(members(world), out=whole, **options)
    with pytest.raises(KeyboardInterrupt):
        api.ensemble(members(world), out=out, progress=Stopped(6), **options)
    assert not out.exists() and (tmp_path / "out.labels.jsonl").exists()
    for runs, beam in ((members(world)[:2], 3), (members(world), 2)):
        with pytest.raises(UsageError, match="another teacher or other options"):
            api.ensemble(runs, out=out, beam=beam, **options)
    made = api.ensemble(members(world), out=out, **options).made
    assert made is not None and made.labelled.generated == COUNT["train"] - 6
    assert (out / "dataset_balls.json").read_bytes() == (whole / "dataset_balls.json").read_bytes()
    assert not (tmp_path / "out.labels.jsonl").exists()


def test_scores_stand_beside_those_of_each_run(world: World) -> None:
    found = api.ensemble(members(world), data=world.data, score="val", batch=4).scores
    assert found is not None and (found.split, found.photos, found.beam) == ("val", COUNT["val"], 3)
    photos = load_caption_set(world.data).split("val")
    human = {photo.name: photo.captions for photo in photos}
    with open_photos(world.data) as store:
        for member, folder in zip(found.members, members(world), strict=True):
            run = load_run(folder)
            said = TrainedCaptioner(run).captions(list(human), store, 3)
            alone = score(human, {name: one.caption for name, one in said.items()}, meteor=False)
            assert member.cider_d.estimate == pytest.approx(alone.cider_d) and member.name == folder.name
            assert found.tokenizer == alone.tokenizer
    for member in found.members:
        gain = member.gain.difference.estimate
        assert gain == pytest.approx(found.cider_d.estimate - member.cider_d.estimate)
    alone_in = api.ensemble(members(world)[0], data=world.data, score="val").as_json()
    assert alone_in["scores"]["members"][0]["gain"]["difference"]["estimate"] == 0 and alone_in["data_set"] is None


def test_runs_with_other_words_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one vocabulary, and these differ") as error:
        api.ensemble([*members(world), world.runs["other words"]], photos=world.data, out=tmp_path / "out")
    assert str(error.value.where) == str(world.runs["other words"]) and "data.vocabulary" in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"photos": "X", "data": "X", "out": "OUT"}, UsageError, "--photos or --data"),
        ({"out": "OUT"}, UsageError, "neither"),
        ({"data": "X"}, UsageError, "nothing to do"),
        ({"photos": "X", "out": "OUT", "score": "val"}, UsageError, "--score"),
        ({"photos": "X", "out": "OUT", "split": "val"}, UsageError, "--split"),
        ({"data": "X", "out": "OUT", "shares": "80,10,10"}, UsageError, "keeps its splits"),
        ({"data": "X", "out": "OUT", "keep": "0%"}, UsageError, "--keep"),
        ({"data": "X", "out": "OUT", "min_words": 9, "max_words": 4}, UsageError, "--min-words"),
        ({"data": "X", "out": "OUT", "split": "dev"}, DataError, "the split 'dev' is empty"),
        ({"data": "X", "out": "OUT", "min_words": 1, "max_words": 1}, DataError, "no caption passes"),
    ],
)
def test_what_cannot_be_done_is_refused(
    options: dict[str, Any], error: type[Exception], said: str, world: World, tmp_path: Path
) -> None:
    places = {"X": world.data, "OUT": tmp_path / "out"}
    given = {name: places.get(value, value) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(error, match=said):
        api.ensemble(members(world)[:1], **given)
    assert not (tmp_path / "out").exists()


def test_command_prints_a_table_and_the_next_command(world: World, tmp_path: Path) -> None:
    arguments = [*members(world)[:2], "--data", world.data, "--score", "val", "--limit", 4, "--out", tmp_path / "out"]
    done = capprune("ensemble", *arguments, "--min-words", 1, "--split", "test")
    assert done.code == 0, done.err
    assert "gain of the ensemble" in done.out and "wide" in done.out and "val, 4 photos" in done.out
    assert f"capprune train CONFIG data.folder={tmp_path / 'out'}" in done.out
    splits = load_caption_set(tmp_path / "out").splits
    assert splits == {"test": COUNT["test"], "val": 4}


def test_names_and_terms_fit_into_a_manifest(world: World) -> None:
    assert _named(["a"]) == "a" and _named(["a", "b", "c"]) == "an ensemble of a, b and c"
    many = _named([f"run-with-a-long-name-{number}" for number in range(9)])
    assert many.endswith(" more") and len(many) < LONGEST_NAME + 30
    long = _licence("my own photos", f"{many} ({'terms ' * 40})")
    assert long.startswith("my own photos; captions by an ensemble of") and len(long) == MOST_LICENCE
    assert EnsembleTeacher(load_ensemble(members(world)[:1]), 3).name == "plain"
