from __future__ import annotations

import contextlib

import checkpoints
import pytest
from checkpoints import CONTROL, SPECIAL, UNKNOWN, WORD, word_model
from hypothesis import given, settings
from hypothesis import strategies as st

from capprune.importing.sentencepiece_words import SpecialIds, read_word_model
from capprune_runtime.errors import BadVocabulary, BundleError

IDS = {40: 1, 41: 2, 42: 3, 43: 0}


def refused(data: bytes) -> BundleError:
    with pytest.raises(BundleError) as caught:
        read_word_model(data, "word.model")
    assert "word.model" in str(caught.value.where)
    return caught.value


def test_tokens_stand_in_the_order_of_their_ids_without_the_mark_of_a_word() -> None:
    found = read_word_model(word_model(), "word.model")
    assert found.tokens[:6] == ("<pad>", "<unk>", "<bos>", "<eos>", "a", "man")
    assert len(found.tokens) == 4 + len(checkpoints.WORDS)
    assert found.special == SpecialIds(pad=0, unk=1, bos=2, eos=3)


def test_special_tokens_may_stand_in_another_order() -> None:
    pieces = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("▁a", WORD), ("</s>", CONTROL), ("<pad>", CONTROL)]
    found = read_word_model(word_model(pieces, ids={43: 4, 41: 1, 42: 3, 40: 0}), "word.model")
    assert found.special == SpecialIds(pad=4, unk=0, bos=1, eos=3)
    assert found.tokens == ("<unk>", "<s>", "a", "</s>", "<pad>")


@pytest.mark.parametrize(("kind", "name"), [(None, "unigram"), (1, "unigram"), (2, "BPE"), (4, "char"), (9, "kind 9")])
def test_other_kinds_of_tokenizers_are_refused_by_their_name(kind: int | None, name: str) -> None:
    error = refused(word_model(kind=kind))
    assert isinstance(error, BadVocabulary) and (error.expected, error.found) == ("a word model", f"a {name} model")


@pytest.mark.parametrize("text", ["man", "", "▁", "▁a▁b", "ing"])
def test_a_piece_that_is_no_word_is_refused_by_its_id(text: str) -> None:
    error = refused(word_model([*SPECIAL, ("▁a", WORD), (text, WORD)]))
    assert error.what == "a piece is not a word" and error.where == "word.model, piece 5"


@pytest.mark.parametrize("changed", [{43: -1}, {40: 99}, {41: 0}, {42: 4}])
def test_special_tokens_that_cannot_be_are_refused(changed: dict[int, int]) -> None:
    assert isinstance(refused(word_model(ids=IDS | changed)), BadVocabulary)


def test_a_control_piece_among_the_words_is_refused() -> None:
    assert "kind" in refused(word_model([*SPECIAL, ("<mask>", CONTROL)])).what


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 40, b"PK\x03\x04", b"# not a model\n", word_model()[:-1], word_model()[:50]]
)
def test_what_is_no_model_is_refused(data: bytes) -> None:
    refused(data)


def test_a_model_without_settings_is_refused() -> None:
    assert "trainer_spec" in refused(checkpoints.bytes_field(1, checkpoints.piece("▁a"))).what


def test_text_that_is_not_utf_8_is_refused() -> None:
    refused(word_model([*SPECIAL, ("▁zzz", WORD)]).replace(b"zzz", b"\xff\xfe\xfd"))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(word_model())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        assert read_word_model(bytes(whole), "word.model").tokens
