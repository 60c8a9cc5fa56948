"""Several runs teach one: the mean of their probabilities is learned, each member seeing with its own encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import family_world as families
import numpy as np
import pytest
import tiny_training as tiny
import torch
from torch import Tensor, nn

from capprune.api.run import finetune
from capprune.api.shards import shard_data
from capprune.config.reading import load_config, parse_config
from capprune.data.scenes import draw_scenes
from capprune.models.ensemble import ensemble_beam
from capprune.training.batches import Batch
from capprune.training.derived import finetuning_config
from capprune.training.loop import Trainer
from capprune.training.objectives import Distillation
from capprune.training.prepare import prepare
from capprune.training.progress import SILENT
from capprune.training.run import BEST, load_teacher, read_checkpoint, read_run
from capprune.training.session import train_run
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS, Vocabulary
from capprune_runtime.errors import ConfigError, UsageError

WIDE, NARROW = "decoder.hidden=48", "decoder.hidden=12"
ONLY_TAUGHT = "training.distillation.weight=1.0"


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of other widths and seeds."""
    folder = tmp_path_factory.mktemp("teachers")
    tiny.trainer(folder / "wide", WIDE, "training.epochs=6", "training.seed=5").run()
    tiny.trainer(folder / "other", "decoder.hidden=32", "training.epochs=2", "training.seed=9").run()
    return folder / "wide", folder / "other"


def taught(*folders: Path) -> str:
    return f"training.distillation.teacher=[{', '.join(map(str, folders))}]"


def first_batch(trainer: Trainer) -> tuple[Tensor, Batch]:
    batch = next(trainer.batches.epoch(0))
    return torch.from_numpy(trainer.train.features[batch.photos].astype(np.float32)), batch


def own_scores(folder: Path, features: Tensor, batch: Batch) -> Tensor:
    """The scores `(words, V)` of a run."""
    decoder = load_teacher(folder, tiny.VOCABULARY, tiny.FEATURES)
    with torch.no_grad():
        return decoder.scores(features, torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets))


@pytest.mark.parametrize("heat", [1.0, 3.0])
def test_the_mean_of_the_teachers_probabilities_is_learned(
    heat: float, teachers: tuple[Path, Path], tmp_path: Path
) -> None:
    hot = f"training.distillation.temperature={heat}"
    trainer = tiny.trainer(tmp_path / "run", NARROW, taught(*teachers), ONLY_TAUGHT, hot)
    assert isinstance(trainer.objective, Distillation)
    features, batch = first_batch(trainer)
    each = [own_scores(folder, features, batch) for folder in teachers]
    mean = torch.stack([torch.softmax(one / heat, -1) for one in each]).mean(0)
    trainer.decoder.eval()
    inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    own = torch.log_softmax(trainer.decoder.scores(features, inputs, targets) / heat, -1)
    expected = heat**2 * nn.functional.kl_div(own, mean, reduction="batchmean")
    found = trainer.objective.loss(trainer.decoder.scores, features, batch)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    perfect = trainer.objective.loss(lambda *_: heat * mean.log(), features, batch)
    assert float(perfect) == pytest.approx(0, abs=1e-5)
    assert min(float((one.softmax(-1) - each[0].softmax(-1)).abs().max()) for one in each[1:]) > 0.1
    found.backward()
    assert all(one.grad is None for teacher in trainer.objective._teachers for one in teacher.decoder.parameters())


def test_two_equal_teachers_teach_as_one(teachers: tuple[Path, Path], tmp_path: Path) -> None:
    wide, _ = teachers
    weights = {}
    for name, teacher in (
        ("path", f"training.distillation.teacher={wide}"),
        ("list", taught(wide)),
        ("twice", taught(wide, wide)),
    ):
        outcome = tiny.trainer(tmp_path / name, NARROW, teacher, "training.epochs=2").run()
        weights[name] = (outcome.cider, read_checkpoint(tmp_path / name / BEST).tensors)
    assert weights["path"][0] == weights["list"][0] == weights["twice"][0]
    for name, value in weights["path"][1].items():
        torch.testing.assert_close(weights["list"][1][name], value, rtol=0, atol=0)
        torch.testing.assert_close(weights["twice"][1][name], value, rtol=1e-4, atol=1e-5)


def test_captions_of_the_ensemble_are_learned_beside_those_of_people(
    teachers: tuple[Path, Path], tmp_path: Path
) -> None:
    own = (NARROW, taught(*teachers), "training.distillation.sequences=true", "training.epochs=1")
    trainer = tiny.trainer(tmp_path / "run", *own)
    assert isinstance(trainer.objective, Distillation)
    features, batch = first_batch(trainer)
    decoders = [teacher.decoder for teacher in trainer.objective._teachers]
    with torch.inference_mode():
        encoded = [decoder.encode(features) for decoder in decoders]
    said = ensemble_beam(decoders, encoded, trainer.config.data.maximum_tokens).tokens
    found = trainer.objective.prepare(features, batch)
    rows = found.targets.reshape(len(batch.photos), -1, found.targets.shape[1])
    assert [tuple(row[row >= 0][:-1].tolist()) for row in rows[:, -1]] == said
    assert trainer.run().epoch == 0


def test_each_teacher_learns_from_its_own_table(teachers: tuple[Path, Path], tmp_path: Path) -> None:
    train = tiny.split(1)
    dark = tiny.Table(np.zeros_like(train.features[np.arange(tiny.PHOTOS)]))
    own = (NARROW, taught(*teachers), ONLY_TAUGHT)
    alike = tiny.trainer(tmp_path / "alike", *own, train=replace(train, taught=(train.features, train.features)))
    one_blind = tiny.trainer(tmp_path / "blind", *own, train=replace(train, taught=(train.features, dark)))
    features, batch = first_batch(alike)
    scores = alike.decoder.eval().scores
    losses = [one.objective.loss(scores, features, batch).detach() for one in (alike, one_blind)]
    assert abs(float(losses[0] - losses[1])) > 1e-3


def test_teachers_of_other_words_and_empty_lists_are_refused(teachers: tuple[Path, Path], tmp_path: Path) -> None:
    other = Vocabulary((*SPECIAL_TOKENS, *tiny.VOCABULARY.tokens[4:][::-1]))
    tiny.trainer(tmp_path / "other", WIDE, "training.epochs=1", vocabulary=other).run()
    with pytest.raises(UsageError, match="other words") as error:
        tiny.trainer(tmp_path / "run", NARROW, taught(teachers[0], tmp_path / "other"))
    assert str(error.value.where) == str(tmp_path / "other")
    with pytest.raises(UsageError, match="no such run"):
        tiny.trainer(tmp_path / "run", NARROW, taught(teachers[0], tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="at least one"):
        parse_config(tiny.TREE, ["training.distillation.teacher=[]"])
    assert not (tmp_path / "run").exists()


def test_config_keeps_one_path_and_lists_and_publishes_no_folder(tmp_path: Path) -> None:
    one = parse_config(tiny.TREE, ["training.distillation.teacher=/home/me/runs/a"]).training.distillation
    assert one.teacher == Path("/home/me/runs/a") and one.teachers == (one.teacher,)
    assert one.without_places().teacher == Path("a")
    written = parse_config(tiny.TREE, ["training.distillation.teacher=[/home/me/1e3, ~/b]"])
    several = written.training.distillation
    assert several.teachers == (Path("/home/me/1e3"), Path.home() / "b")
    assert written.without_places().training.distillation.teachers == (Path("1e3"), Path("b"))
    (tmp_path / "config.yaml").write_text(written.as_yaml())
    assert load_config(tmp_path / "config.yaml") == written
    assert parse_config(tiny.TREE, []).training.distillation.without_places().teachers == ()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    draw_scenes(folder, count={"train": 6, "val": 4, "test": 1}, seed=5, size=64)
    yield folder


def test_features_of_each_teacher_are_computed_and_shared_where_encoders_are_equal(
    scenes: Path, tmp_path: Path
) -> None:
    tree = {
        "data": {"folder": str(scenes), "minimum_count": 1},
        "encoder": {"size": 64, "grid": 2},
        "decoder": {"family": "show_tell", "embedding": 8, "hidden": 8},
        "training": {"epochs": 1, "validation_photos": 2},
    }
    for name, own in (("a", ()), ("b", ("training.seed=2",)), ("small", ("encoder.size=32", "encoder.grid=1"))):
        train_run(parse_config(tree, own), tmp_path / name, tmp_path / "cache")
    folders = [tmp_path / name for name in ("a", "small", "b")]
    data = prepare(parse_config(tree, [taught(*folders)]), cache=tmp_path / "cache", bar=SILENT.bar)
    first, small, last = data.train.taught
    assert first is last and first.shape == (6, 4, 1280) and small.shape == (6, 1, 1280)
    np.testing.assert_array_equal(first[np.arange(6)], data.train.features[np.arange(6)])
    shard_data(scenes, out=tmp_path / "shards")
    streamed = parse_config(tree, [taught(*folders), f"data.shards={tmp_path / 'shards'}"])
    read = prepare(streamed, cache=tmp_path / "cache", bar=SILENT.bar)
    same, other, again = read.train.taught
    assert same is again is read.train.features and other is not same
    order = [list(data.train.names).index(name) for name in read.train.names]
    np.testing.assert_allclose(other[np.arange(6)], small[np.array(order)], atol=0.02)
    tuned = finetune(
        folders[0],
        teacher=folders[1:],
        out=tmp_path / "tuned",
        overrides={"training.epochs": 1},
        cache=tmp_path / "cache",
    )
    assert read_run(tuned.folder).config.training.distillation.teachers == tuple(folders[1:])


def test_vocabulary_of_a_run_fits_other_captions_and_its_teachers(scenes: Path, tmp_path: Path) -> None:
    """Further captions change the order of the words, which a teacher, a start and an ensemble need."""
    tree = {
        "data": {"folder": str(scenes), "minimum_count": 1},
        "encoder": {"size": 64, "grid": 1},
        "decoder": {"family": "show_tell", "embedding": 8, "hidden": 8},
        "training": {"epochs": 1, "validation_photos": 2},
    }
    cache = tmp_path / "cache"
    train_run(parse_config(tree), tmp_path / "teacher", cache)
    draw_scenes(tmp_path / "more", count={"train": 6, "val": 1, "test": 1}, seed=11, size=64)
    own = [f"training.distillation.teacher={tmp_path / 'teacher'}", f"data.sources=[{{folder: {tmp_path / 'more'}}}]"]
    with pytest.raises(UsageError, match=r"data\.vocabulary"):
        train_run(parse_config(tree, own), tmp_path / "refused", cache)
    own.append(f"data.vocabulary={tmp_path / 'teacher'}")
    train_run(parse_config(tree, own), tmp_path / "student", cache)
    student, teacher = read_run(tmp_path / "student"), read_run(tmp_path / "teacher")
    assert student.vocabulary == teacher.vocabulary
    assert student.config.without_places().data.vocabulary == Path("teacher")
    followed = finetuning_config(tmp_path / "student", "cross_entropy", (), ["training.epochs=1"])
    assert followed.data.vocabulary == tmp_path / "student"  # also if the teacher's folder is gone
    data = prepare(parse_config(tree, own), cache=cache, bar=SILENT.bar)
    assert any(f"not in the vocabulary of {tmp_path / 'teacher'}" in note for note in data.notes), data.notes
    for wrong, error, message in (
        (f"data.vocabulary={tmp_path / 'nowhere'}", UsageError, "no such run"),
        ("data.tokens=characters", ConfigError, "another kind"),
    ):
        with pytest.raises(error, match=message):
            prepare(parse_config(tree, [*own, wrong]), cache=cache, bar=SILENT.bar)


def test_a_teacher_of_shorter_captions_has_room_for_those_of_the_student(tmp_path: Path) -> None:
    teacher, short = tmp_path / "teacher", ("training.epochs=1", "data.maximum_tokens=4")
    families.trainer(teacher, "relation_transformer", *short).run()  # its state has a slice for each word
    own = (taught(teacher), "training.distillation.sequences=true", "training.epochs=1", "data.maximum_tokens=12")
    student = families.trainer(tmp_path / "student", "soft_attention", *own)
    assert student.run().epoch == 0
    decoder = load_teacher(teacher, tiny.VOCABULARY, families.FEATURES)
    longer = load_teacher(teacher, tiny.VOCABULARY, families.FEATURES, 12)
    features, batch = first_batch(student)
    words = torch.from_numpy(batch.inputs[:, :4]), torch.from_numpy(batch.targets[:, :4])
    with torch.no_grad():
        torch.testing.assert_close(longer.scores(features, *words), decoder.scores(features, *words))
