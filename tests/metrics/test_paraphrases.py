"""METEOR with the part of its table that captions can use gives the score of the whole table."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from capprune.metrics import java, paraphrases
from capprune.metrics.java import meteor_score, pycocoevalcap_folder
from capprune.metrics.paraphrases import CHUNK, PARTS, paraphrases_for, words_of

PAIRS = (
    *(("0.5", "a dog", "the dog"), ("0.25", "a dog", "an animal"), ("0.5", "big", "large")),
    *(("0.1", "dog runs", "dog is running"), ("0.2", "café", "coffee house"), ("0.3", "large", "big")),
)
ODD = (
    "a man's t-shirt , it is n't 3.5 km from café au lait don’t",
    "o'clock 10,000 u.s. mr. smith is -- here … 1/2 & co. over-sized",
    "über-cool naïve x-ray state-of-the-art a_b sports-man",
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    place = tmp_path / "paraphrase-en.gz"
    write(place, PAIRS)
    return place


def write(place: Path, pairs: Sequence[tuple[str, str, str]]) -> None:
    with gzip.open(place, "wt", encoding="utf-8") as file:
        file.writelines(f"{probability}\n{first}\n{second}\n" for probability, first, second in pairs)


def pairs_in(place: Path) -> list[tuple[str, str, str]]:
    lines = gzip.decompress(place.read_bytes()).decode().splitlines()
    return list(zip(lines[::3], lines[1::3], lines[2::3], strict=True))


def test_a_pair_stays_if_the_texts_have_all_of_its_words(table: Path, tmp_path: Path) -> None:
    found = paraphrases_for(["The dog, a big one", "a large café"], table, tmp_path / "cache")
    assert pairs_in(found) == [PAIRS[0], PAIRS[2], PAIRS[5]]


def test_pairs_that_cross_the_borders_of_what_is_read_at_once_stay(tmp_path: Path) -> None:
    pairs = [(f"0.{n}", f"word{n} here", f"{'long ' * 40}word{n}") for n in range(2 * CHUNK // 200)]
    write(tmp_path / "table.gz", pairs)
    words = " ".join(f"word{n}" for n in range(len(pairs)))
    assert pairs_in(paraphrases_for([f"here long {words}"], tmp_path / "table.gz", tmp_path / "cache")) == pairs


def test_words_are_those_before_and_after_meteor_splits_at_punctuation() -> None:
    assert words_of(["T-shirt a_b", "don’t café"]) == {
        word.encode() for word in ("t-shirt", "tshirt", "t", "shirt", "a_b", "ab", "a", "b")
    } | {word.encode() for word in ("don’t", "dont", "don", "café")}


def test_a_part_is_used_again_for_fewer_words_and_widened_for_some_more(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = paraphrases_for(["a b c d e f dog the big"], table, cache)
    with monkeypatch.context() as patch:
        patch.setattr(paraphrases, "_write", lambda *_: pytest.fail("a part was made again"))
        assert paraphrases_for(["the dog"], table, cache) == first
    wider = paraphrases_for(["the large"], table, cache)
    assert pairs_in(wider) == [PAIRS[0], PAIRS[2], PAIRS[5]]
    other = paraphrases_for(["coffee house café run an animal"], table, cache)
    assert pairs_in(other) == [PAIRS[4]]


def test_another_table_has_parts_of_its_own(table: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    paraphrases_for(["big large"], table, cache)
    write(table, PAIRS[:3])
    assert pairs_in(paraphrases_for(["big large"], table, cache)) == [PAIRS[2]]


@pytest.mark.parametrize("suffix", [".gz", ".words"])
@pytest.mark.parametrize("damage", ["cut off", "changed", "removed"])
def test_a_damaged_part_is_made_again(table: Path, tmp_path: Path, suffix: str, damage: str) -> None:
    found = paraphrases_for(["big large"], table, tmp_path / "cache")
    place = found.with_suffix(suffix)
    data = bytearray(place.read_bytes())
    data[-5] ^= 1
    place.unlink() if damage == "removed" else place.write_bytes(data if damage == "changed" else data[:-4])
    again = paraphrases_for(["big large"], table, tmp_path / "cache")
    assert pairs_in(again) == [PAIRS[2], PAIRS[5]]


def test_without_a_cache_meteor_gets_the_whole_table(table: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert paraphrases_for(["big large"], table, tmp_path / "file" / "cache") == table


def test_old_parts_are_removed(table: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for number in range(PARTS + 2):
        found = paraphrases_for([f"word{number} number{number}"], table, cache)
        if number < PARTS + 1:
            os.utime(found, (number, number))
    kept = {path.stem for path in cache.glob("*.gz")}
    assert len(kept) == PARTS and found.stem in kept
    assert {path.stem for path in cache.glob("*.words")} == kept


@pytest.mark.slow
def test_meteor_gives_the_score_of_its_whole_table(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if java.java_command() is None:
        pytest.skip("no Java runs here")
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path))
    text = (data_folder / "coco_eval" / "captions_karpathy_test_ptb.json").read_text(encoding="utf-8")
    captions = list(json.loads(text).values())[:500]
    references = [*(own[1:] for own in captions), *([one, "a man in a shirt"] for one in ODD)]
    hypotheses = [*(own[0] for own in captions), *(f"{one} really" for one in ODD)]
    score = meteor_score(references, hypotheses)
    (part,) = tmp_path.glob("meteor/*.gz")
    table = pycocoevalcap_folder() / java.METEOR_TABLE
    assert part.stat().st_size < table.stat().st_size / 10

    monkeypatch.setattr(java, "paraphrases_for", lambda *_: table)
    assert meteor_score(references, hypotheses) == score
