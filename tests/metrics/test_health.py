from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from capprune.metrics import health
from capprune.metrics.health import BAD_ENDINGS, COLUMNS, Consensus, best_constant_caption, caption_health
from capprune.metrics.scores import score_tokenised
from capprune_runtime.errors import DataError

SCHEMA = Path(__file__).parents[2] / "docs" / "results_schema.md"
WORDS = ("a", "dog", "runs", "on", "grass", "red")
CAPTIONS = st.lists(st.sampled_from(WORDS), min_size=0, max_size=9).map(" ".join)
REFERENCES = st.lists(st.lists(CAPTIONS, min_size=1, max_size=3), min_size=1, max_size=6)


def test_health_counts_what_is_sick() -> None:
    measured = caption_health(["a dog runs", "a <unk> with a", "A dog runs", ""])
    assert measured.captions == 4
    assert measured.distinct_captions == 3
    assert measured.distinct_words == 5  # a, dog, runs, <unk>, with
    assert measured.mean_words == pytest.approx(2.5)
    assert measured.unknown_share == measured.bad_ending_share == measured.empty_share == 0.25


@pytest.mark.parametrize("word", ["a", "the", "of", "with", "on", "and", "from", "is", "that", "her"])
def test_a_caption_that_stops_in_the_middle_has_a_bad_ending(word: str) -> None:
    assert caption_health([f"a dog {word}"]).bad_ending_share == 1
    assert caption_health([f"a {word} dog"]).bad_ending_share == 0


def test_health_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no captions"):
        caption_health([])


@given(caption=CAPTIONS, references=REFERENCES)
def test_consensus_is_pycocoevalcaps_cider_of_a_constant_caption(
    caption: str, references: Sequence[Sequence[str]]
) -> None:
    assume(any(map(any, references)))
    by_photo = {str(number): own for number, own in enumerate(references)}
    scores = score_tokenised(by_photo, dict.fromkeys(by_photo, caption), tokenizer="plain", meteor=False)
    assert Consensus(references).mean_cider(caption) == pytest.approx(scores.cider_d, abs=1e-9)


def scenes(count: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Photos of one to three kinds, each with five captions."""
    draw = random.Random(seed)
    photos = {}
    for number in range(count):
        thing = draw.choice(("dog", "dog", "dog", "boat", "ball"))
        photos[f"{number:03}.jpg"] = tuple(
            f"A {draw.choice(('red', 'small', 'black'))} {thing} {draw.choice(('runs', 'lies', 'is'))} "
            f"{draw.choice(('on grass', 'in the sun', 'there'))}."
            for _ in range(5)
        )
    return photos


def test_every_documented_ending_counts_and_no_other_does() -> None:
    line = next(line for line in SCHEMA.read_text().splitlines() if line.startswith("| `bad_ending_share` |"))
    documented = line.split(":", 1)[1].strip(" |").split(", ")
    assert set(documented) == BAD_ENDINGS and len(documented) == len(BAD_ENDINGS)
    assert caption_health([f"a dog {word}" for word in documented]).bad_ending_share == 1
    assert caption_health(["a dog", "the grass", "a man on it", "", "a"]).bad_ending_share == 1 / 5


def test_cells_show_what_the_columns_name() -> None:
    found = caption_health(["a dog runs on", "a <unk> runs", "a cat", "a cat"])
    assert dict(zip(COLUMNS, found.cells(), strict=True)) == {
        "distinct words": "6",
        "mean words": "2.8",
        "with <unk>": "25.0%",
        "bad endings": "25.0%",
    }


def test_best_constant_caption_beats_every_other_training_caption() -> None:
    references = scenes(40, seed=1)
    training = [caption for captions in scenes(30, seed=2).values() for caption in captions]
    caption, scores = best_constant_caption(training, references, tokenizer="plain")

    tokenised = {name: [own.lower().rstrip(".") for own in captions] for name, captions in references.items()}
    consensus = Consensus(list(tokenised.values()))
    everyone = {own.lower().rstrip(".") for own in training}
    assert caption in everyone
    assert scores.cider_d == pytest.approx(max(map(consensus.mean_cider, everyone)))
    assert " dog " in caption
    assert (scores.tokenizer, scores.photos) == ("plain", 40)


def test_best_constant_caption_ranks_on_a_sample_and_decides_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CONSTANT_CAPTION_SAMPLE", 2)
    monkeypatch.setattr(health, "CONSTANT_CAPTION_FINALISTS", 2)
    references = {name: (f"a {thing} here",) for name, thing in zip("abcdef", ("cat", *["dog"] * 5), strict=True)}
    # Photos a and d are the sample, in which both captions are equal; the cat comes first.
    caption, _ = best_constant_caption(["a cat here", "a dog here", "nothing"], references, tokenizer="plain")
    assert caption == "a dog here"


@pytest.mark.parametrize(
    ("training", "references"), [([], {"a": ("a dog",)}), (["..."], {"a": ("a dog",)}), (["a"], {})]
)
def test_best_constant_caption_of_nothing_is_refused(
    training: list[str], references: dict[str, tuple[str, ...]]
) -> None:
    with pytest.raises(DataError, match="needs training captions"):
        best_constant_caption(training, references, tokenizer="plain")
