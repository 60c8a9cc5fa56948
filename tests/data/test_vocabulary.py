from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capprune.data.captions import load_caption_set, words
from capprune.data.vocabulary import build_vocabulary, encode
from capprune.data.words import plain
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS, UNKNOWN, parse_vocabulary
from capprune_runtime.errors import DataError, UsageError


def test_words_stand_by_count_then_alphabet_after_the_special_tokens() -> None:
    vocabulary = build_vocabulary(["A dog, a cat.", "a bird", "dog cat zebra"], minimum_count=1)
    assert vocabulary.tokens == (*SPECIAL_TOKENS, "a", "cat", "dog", "bird", "zebra")


def test_rare_words_become_unknown() -> None:
    vocabulary = build_vocabulary(["a dog and a cat", "a dog"], minimum_count=2)
    assert vocabulary.tokens[4:] == ("a", "dog")
    assert encode("A cat, a dog!", vocabulary, 20) == (4, UNKNOWN, 4, 5)


def test_long_caption_is_cut() -> None:
    vocabulary = build_vocabulary(["a b c"], minimum_count=1)
    assert encode("a b c a b c", vocabulary, 4) == (4, 5, 6, 4)


def test_real_flickr8k_has_its_known_numbers_of_words(data_folder: Path) -> None:
    train = load_caption_set(data_folder / "flickr8k").split("train")
    captions = [caption for photo in train for caption in photo.captions]
    assert len(build_vocabulary(captions, minimum_count=1).tokens) == 7370 + 4
    assert len(build_vocabulary(captions, minimum_count=5).tokens) == 2535 + 4


@given(st.lists(st.text(min_size=1)).filter(lambda captions: any(map(words, captions))))
def test_every_caption_comes_back_from_its_ids(captions: list[str]) -> None:
    vocabulary = build_vocabulary(captions, minimum_count=1)
    for caption in captions:
        assert vocabulary.caption(encode(caption, vocabulary, 10_000)) == plain(caption)
    assert parse_vocabulary(vocabulary.as_text(), "vocabulary.txt") == vocabulary


def test_no_frequent_word_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"(?s)no word is frequent enough.*2 words, the most frequent 1 times"):
        build_vocabulary(["a dog"], minimum_count=5)
    with pytest.raises(DataError, match="no word"):
        build_vocabulary([], minimum_count=1)


def test_count_below_one_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        build_vocabulary(["a dog"], minimum_count=0)


def test_word_too_long_for_a_vocabulary_is_unknown() -> None:
    vocabulary = build_vocabulary(["a " + "x" * 101], minimum_count=1)
    assert vocabulary.tokens[4:] == ("a",)
