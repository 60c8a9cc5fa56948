"""From token ids of every kind to text, and which sections of a manifest are taken."""

from __future__ import annotations

import json

import pytest
import test_manifest
from hypothesis import given
from hypothesis import strategies as st

from capprune_runtime.bundle.manifest import parse_manifest
from capprune_runtime.bundle.tokens import UNSPACED, WORDS, TokensSection, joined_pieces, joined_words, radix, unspaced
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS, UNKNOWN, Vocabulary, parse_vocabulary
from capprune_runtime.errors import BadVocabulary, BundleError

NUMBERS = tuple(f"w{number}" for number in range(20))


def vocabulary(*tokens: str, coding: TokensSection = WORDS) -> Vocabulary:
    return Vocabulary((*SPECIAL_TOKENS, *tokens), coding)


def test_words_are_joined_with_spaces_but_not_in_scripts_without_spaces() -> None:
    assert joined_words(["ein", "größeres", "haus"]) == "ein größeres haus"
    assert joined_words(["一", "只", "dog", "跑"]) == "一只 dog 跑"
    assert joined_words(["ต้น", "ไ", "ม้"]) == "ต้นไม้"
    assert joined_words(["한국어", "문장"]) == "한국어 문장"
    assert joined_words([]) == ""


def test_pieces_are_joined_and_their_marker_is_a_space() -> None:
    assert joined_pieces(["▁", "▁ein", "▁mäd", "chen", "▁", "▁"]) == "ein mädchen"
    assert joined_pieces(["क", "ि", "▁", "म"]) == "कि म"


def test_ranges_without_spaces_rise_and_do_not_touch() -> None:
    flat = [point for one in UNSPACED for point in one]
    assert flat == sorted(set(flat))
    assert [unspaced(one) for one in "ก文ワ\U00020000a한ä"] == [True] * 4 + [False] * 3


def test_radix_tokens_are_two_digits_from_the_most_significant() -> None:
    words = vocabulary(*NUMBERS, coding=radix(5))
    assert words.decoder_size == 9 and words.described() == "24 words in radix 5"
    assert [words.token_ids(line) for line in (4, 5, 9, 23)] == [(4, 4), (4, 5), (5, 4), (7, 8)]
    assert words.token_ids(UNKNOWN) == (UNKNOWN, UNKNOWN)
    assert words.caption([7, 8, 4, 5]) == "w19 w1"


def test_digits_that_are_no_word_and_a_digit_alone_are_read_in_one_way() -> None:
    words = vocabulary(*NUMBERS, coding=radix(5))
    assert words.caption([8, 4]) == "<unk>"  # number 20 of 0 to 19
    assert words.caption([UNKNOWN, 5, 4, 5]) == "<unk> w1"
    assert words.caption([4, 5, 6]) == "w1"
    assert words.caption([1, 4, 5, 2, 0]) == "w1"
    assert words.shown([4, 5, 6]) == ("…", "w1", "…")


@given(st.integers(2, 40), st.data())
def test_words_come_back_from_their_digits_in_every_base(base: int, data: st.DataObject) -> None:
    words = vocabulary(*(f"w{number}" for number in range(data.draw(st.integers(1, base**2)))), coding=radix(base))
    lines = data.draw(st.lists(st.integers(3, len(words) - 1)))
    ids = [token for line in lines for token in words.token_ids(line)]
    assert words.lines(ids) == tuple(lines)
    assert all(3 <= token < words.decoder_size for token in ids)


@given(st.lists(st.integers(0, 8)))
def test_any_digits_are_read_and_shown(ids: list[int]) -> None:
    words = vocabulary(*NUMBERS, coding=radix(5))
    spoken = [token for token in ids if token > 2]
    assert len(words.lines(ids)) == len(spoken) // 2
    assert len(words.shown(spoken)) == len(spoken)


def test_more_words_than_two_digits_number_are_refused() -> None:
    vocabulary("a", "b", "c", "d", coding=radix(2))
    with pytest.raises(BadVocabulary, match=r"(?s)at most 4.*found *5"):
        vocabulary("a", "b", "c", "d", "e", coding=radix(2))


def test_joiners_are_letters_of_a_word_but_not_after_ascii() -> None:
    text = "".join(f"{token}\n" for token in (*SPECIAL_TOKENS, "می\u200cرود", "\u200d"))
    assert parse_vocabulary(text, "v").tokens[4:] == ("می\u200cرود", "\u200d")
    with pytest.raises(BadVocabulary, match="space or a control"):
        parse_vocabulary(text + "do\u200cg\n", "v")


@pytest.mark.parametrize("section", [WORDS, TokensSection("characters"), TokensSection("subwords"), radix(768)])
def test_a_manifest_tells_the_kind_of_tokens(section: TokensSection) -> None:
    tree = {**test_manifest.sound(), "tokens": vars(section)}
    found = parse_manifest(json.dumps(tree), "m")
    assert found.tokens == section
    assert ("tokens" in found.described()) == (section != WORDS)


@pytest.mark.parametrize(
    ("tokens", "key"),
    [
        ({"kind": "bytes", "base": 0, "per_word": 1}, "tokens.kind"),
        ({"kind": "words", "base": 768, "per_word": 1}, "tokens.base"),
        ({"kind": "words", "base": 0, "per_word": 2}, "tokens.per_word"),
        ({"kind": "radix", "base": 768, "per_word": 1}, "tokens.per_word"),
        ({"kind": "radix", "base": 1, "per_word": 2}, "tokens.base"),
        ({"kind": "radix", "base": 65_537, "per_word": 2}, "tokens.base"),
        ({"kind": "radix", "base": 768.0, "per_word": 2}, "tokens.base"),
        ({"kind": "radix", "base": 768}, "tokens.per_word"),
        ({"kind": "words", "base": 0, "per_word": 1, "more": 1}, "tokens.'more'"),
        (None, "tokens"),
    ],
)
def test_other_tokens_are_refused_and_the_key_named(tokens: object, key: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse_manifest(json.dumps({**test_manifest.sound(), "tokens": tokens}), "m")
    assert str(caught.value.where) == f"m, {key}"
