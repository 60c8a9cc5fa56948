"""Characters, subwords and radix tokens: from foreign captions to a TFLite bundle that generates what torch generates."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.data.scenes import draw_scenes
from capprune.data.words import plain
from capprune.exporting.export import Wanted, export
from capprune.metrics.scores import cider_d
from capprune.trained import TrainedCaptioner
from capprune.training.loop import Trainer
from capprune.training.prepare import Prepared, prepare
from capprune.training.run import SUBWORDS, load_run
from capprune_runtime.bundle.tokens import RADIX_DIGITS
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.proof import prove_golden
from capprune_runtime.errors import ConfigError, MissingFile
from capprune_runtime.photo import read_photo

SENTENCES = ("ein größeres Mädchen läuft", "कुत्ता घास पर है", "一只狗在跑", "قِطَّة صغيرة")  # of each photo in turn
KINDS = {
    "radix": ("data.radix_base=5",),
    "characters": ("data.maximum_tokens=40",),
    "subwords": ("data.maximum_tokens=40", "data.subword_pieces=60", "data.subword_model=bpe"),
}
TREE = {
    "data": {"minimum_count": 1},
    "encoder": {"size": 64},
    "decoder": {"embedding": 16, "hidden": 48, "attention": 16, "context": 16},
    "training": {"epochs": 100, "photos_per_batch": 8, "learning_rate": 1e-2, "validation_photos": 8},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes, each of which one of the sentences is said of."""
    folder = tmp_path_factory.mktemp("foreign")
    draw_scenes(folder / "data", count={"train": 24, "val": 8}, seed=1, size=64)
    (path,) = (folder / "data").glob("dataset_*.json")
    content = json.loads(path.read_text())
    for number, image in enumerate(content["images"]):
        image["sentences"] = [{"raw": SENTENCES[number % len(SENTENCES)]}] * 2
    path.write_text(json.dumps(content))
    return folder


def config(folder: Path, kind: str, *overrides: str) -> RunConfig:
    tree = {**TREE, "data": {**TREE["data"], "folder": str(folder / "data"), "tokens": kind}}
    return parse_config(tree, [*KINDS[kind], *overrides])


def no_bar(label: str) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(lambda done, total: None)


def trained(folder: Path, wanted: RunConfig, out: Path) -> Prepared:
    prepared = prepare(wanted, cache=folder / "cache", bar=no_bar)
    human = {photo.name: photo.captions for photo in prepared.validation_photos}
    Trainer(
        wanted,
        out,
        vocabulary=prepared.vocabulary,
        train=prepared.train,
        validation=prepared.validation,
        quality=lambda captions: cider_d({name: human[name] for name in captions}, captions),
        subwords=prepared.subwords,
    ).run()
    return prepared


@pytest.fixture(scope="module", params=list(KINDS))
def run(request: pytest.FixtureRequest, folder: Path) -> Path:
    out: Path = folder / str(request.param)
    trained(folder, config(folder, request.param), out)
    return out


@pytest.mark.slow
def test_every_caption_comes_back_from_its_tokens(run: Path, folder: Path) -> None:
    kind = run.name
    prepared = prepare(config(folder, kind), cache=folder / "cache", bar=no_bar)
    said = {prepared.vocabulary.caption(ids) for own in prepared.train.captions for ids in own}
    assert said == {plain(sentence) for sentence in SENTENCES}
    assert all(0 <= token < prepared.vocabulary.decoder_size for own in prepared.train.captions for token in own[0])


@pytest.mark.slow
def test_tflite_bundle_generates_the_captions_of_torch(run: Path, folder: Path, tmp_path: Path) -> None:
    found = load_run(run)
    place = export(found, tmp_path / "bundle", Wanted()).bundle.place
    bundle = verify_bundle(place)
    coding = bundle.manifest.tokens
    assert (coding.kind, coding.base) == (run.name, 5 if run.name == "radix" else 0)
    assert coding.per_word == (RADIX_DIGITS if run.name == "radix" else 1)
    assert all(proof.same for proof in prove_golden(bundle))
    captioner, torch = Captioner(bundle), TrainedCaptioner(found)
    photos = [read_photo(path, 64) for path in sorted((folder / "data").rglob("*.png"))[:12]]
    for beam in (1, 3):
        expected = torch.caption(np.stack(photos), beam)
        device = [captioner.caption(photo, beam) for photo in photos]
        assert [one.tokens for one in device] == [one.tokens for one in expected]
        assert [one.text for one in device] == [one.caption for one in expected]
        assert all(len(one.shown) == len(one.tokens) for one in device)
        assert any(one.text in {plain(sentence) for sentence in SENTENCES} for one in device)  # it has learned to spell


@pytest.mark.slow
def test_self_critical_training_rewards_the_words_of_any_tokens(run: Path, folder: Path) -> None:
    start = [f"start={run}", "training.objective=scst", "training.epochs=1", "training.learning_rate=1e-4"]
    again = folder / f"{run.name}-scst"
    trained(folder, config(folder, run.name, *start), again)
    assert load_run(again).vocabulary == load_run(run).vocabulary


def test_run_that_starts_from_subwords_splits_captions_with_the_same_model(folder: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    prepared = trained(folder, config(folder, "subwords", "training.epochs=1"), start)
    assert (start / SUBWORDS).read_bytes() == prepared.subwords
    wanted = config(folder, "subwords", f"start={start}", "data.limit=3", "data.subword_pieces=30")
    assert prepare(wanted, cache=folder / "cache", bar=no_bar).vocabulary == prepared.vocabulary
    (start / SUBWORDS).unlink()
    with pytest.raises(MissingFile, match="keeps no sentencepiece model"):
        prepare(wanted, cache=folder / "cache", bar=no_bar)


def test_captions_longer_than_the_limit_are_refused_where_tokens_are_parts_of_words(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)maximum_tokens.*cut after 5 characters"):
        prepare(config(folder, "characters", "data.maximum_tokens=5"), cache=folder / "cache", bar=no_bar)


def test_more_words_than_radix_tokens_number_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"at most 4 words in base 2"):
        prepare(config(folder, "radix", "data.radix_base=2"), cache=folder / "cache", bar=no_bar)
