"""Words of captions in every script: no letter is lost, and English is split as ever."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capprune.data.subwords import train_subwords, whole_words
from capprune.data.vocabulary import build_vocabulary, characters, encode
from capprune.data.words import plain, require_readable, words
from capprune_runtime.bundle.tokens import TokensSection, radix
from capprune_runtime.errors import BundleError, DataError

LANGUAGES = {
    "German": ("Ein größeres Mädchen läuft über die Straße!", "ein größeres mädchen läuft über die straße"),
    "French": ("L'œuvre a été dévoilée à Noël.", "l œuvre a été dévoilée à noël"),
    "Chinese": ("一只狗，在跑。", "一只狗在跑"),
    "Japanese": ("犬がボールで遊ぶ", "犬がボールで遊ぶ"),
    "Thai": ("สุนัขกำลังวิ่ง", "สุนัขกำลังวิ่ง"),
    "Arabic": ("قِطَّة صغيرة، تنام.", "قِطَّة صغيرة تنام"),
    "Persian": ("سگ می\u200cدود", "سگ می\u200cدود"),
    "Hindi": ("एक कुत्ता घास पर दौड़ रहा है।", "एक कुत्ता घास पर दौड़ रहा है"),
    "Korean": ("개가 달린다", "개가 달린다"),
    "Russian": ("Собака бежит", "собака бежит"),
    "mixed": ("一个 red 圆形 T恤", "一个 red 圆形 t 恤"),
}
OLD = re.compile(r"[^a-z0-9]+")  # how version 0.1 split


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_of_many_languages_keep_their_letters(language: str) -> None:
    written, expected = LANGUAGES[language]
    assert plain(written) == unicodedata.normalize("NFC", expected)
    assert letters(plain(written)) == letters(written)


def letters(text: str) -> list[str]:
    """The letters and marks of a text, in lower case and NFC."""
    normal = unicodedata.normalize("NFC", text.lower())
    return [one for one in normal if unicodedata.category(one)[0] in "LM"]


@given(st.text(st.characters(categories=["L", "Nd", "Zs", "Po"])))
def test_no_letter_and_no_digit_is_lost(caption: str) -> None:
    kept = [one for one in unicodedata.normalize("NFC", caption.lower()) if unicodedata.category(one) != "Zs"]
    assert "".join(words(caption)) == "".join(one for one in kept if unicodedata.category(one) not in ("Po",))


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_split_as_ever(caption: str) -> None:
    assert words(caption) == tuple(filter(None, OLD.split(caption.lower())))


def test_real_english_captions_are_split_as_ever(data_folder: Path) -> None:
    content = json.loads((data_folder / "flickr8k" / "dataset_flickr8k.json").read_text())
    captions = [sentence["raw"] for image in content["images"] for sentence in image["sentences"]]
    assert len(captions) == 40_000
    for caption in captions:
        expected = tuple(filter(None, OLD.split(caption.lower())))
        assert words(caption) == expected
        assert plain(caption) == " ".join(expected)


def test_composed_and_decomposed_letters_are_one_word() -> None:
    assert words("Ma\u0308dchen") == words("Mädchen") == ("mädchen",)


def test_marks_stay_on_their_letters_and_what_is_invisible_does_not_split() -> None:
    assert words("कि") == ("कि",)
    assert words("Mäd\u00adchen\ufeff") == ("mädchen",)
    assert words("❤\ufe0f 1\ufe0f\u20e3") == ("1",)
    assert words("\u0301 a") == ("a",)


@given(st.text())
def test_plain_text_is_its_own_plain_text(caption: str) -> None:
    assert plain(plain(caption)) == plain(caption)


@pytest.mark.parametrize("broken", ["M\ufffddchen", "M\ud83ddchen", "\ue000 dog"])
def test_letters_that_cannot_be_read_are_refused_and_counted(broken: str) -> None:
    with pytest.raises(DataError, match=r"(?s)2 captions, the first") as caught:
        require_readable(["a dog", broken, "Mädchen", broken], "data")
    str(caught.value).encode()  # the message itself is readable


CAPTIONS = st.lists(st.text("ab äßकि一只وق 'é.", max_size=30), min_size=1).filter(lambda all: any(map(words, all)))


@given(CAPTIONS, st.sampled_from([TokensSection("words"), TokensSection("characters"), radix(7), radix(768)]))
def test_every_caption_comes_back_from_its_tokens(captions: list[str], coding: TokensSection) -> None:
    vocabulary = build_vocabulary(captions, minimum_count=1, coding=coding)
    for caption in captions:
        assert vocabulary.caption(encode(caption, vocabulary, 1000)) == plain(caption)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_every_caption_comes_back_from_its_subwords(kind: str) -> None:
    captions = [written for written, _ in LANGUAGES.values()]
    subwords = train_subwords(captions, pieces=160, kind="bpe" if kind == "bpe" else "unigram")
    again = train_subwords(captions, pieces=160, kind="bpe" if kind == "bpe" else "unigram")
    assert again.vocabulary == subwords.vocabulary and len(subwords.vocabulary) <= 160
    for caption in captions:
        ids = subwords.encode(caption)
        assert subwords.vocabulary.caption(ids) == plain(caption)
        assert len("".join(subwords.vocabulary.shown(ids)).strip()) == len(plain(caption))
    assert 3 in subwords.encode("ein ☃ Щука")  # letters that no training caption has


def test_subwords_need_a_piece_for_each_character() -> None:
    with pytest.raises(DataError, match=r"(?s)pieces.*subword_pieces"):
        train_subwords(["abcdefghijklmnopqrstuvwxyz"], pieces=20, kind="bpe")


def test_other_bytes_are_no_sentencepiece_model() -> None:
    from capprune.data.subwords import Subwords

    with pytest.raises(BundleError, match="not a sentencepiece model"):
        Subwords(b"\x00\x01 no model")


def test_characters_are_code_points_with_a_marker_for_spaces() -> None:
    assert characters("कि अ") == ("क", "ि", "▁", "अ")


def test_caption_that_is_cut_ends_with_a_whole_word() -> None:
    vocabulary = build_vocabulary(["ein haus am see"], minimum_count=1, coding=TokensSection("characters"))
    for longest, expected in ((15, "ein haus am see"), (14, "ein haus am"), (8, "ein haus"), (7, "ein"), (2, "ei")):
        assert vocabulary.caption(encode("ein haus am see", vocabulary, longest)) == expected
    chinese = build_vocabulary(["一只狗在跑"], minimum_count=1, coding=TokensSection("characters"))
    assert chinese.caption(whole_words(encode("一只狗在跑", chinese, 9), chinese, 3)) == "一只狗"
