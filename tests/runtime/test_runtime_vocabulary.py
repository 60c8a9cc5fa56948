"""vocabulary.txt: ids are line numbers, and nothing that could not be shown or looked up gets in."""

from __future__ import annotations

from pathlib import Path

import pytest

from capprune_runtime.bundle.vocabulary import END, PAD, START, UNKNOWN, Vocabulary, parse_vocabulary, read_vocabulary
from capprune_runtime.errors import BadVocabulary, MissingFile

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
SPECIAL_TEXT = "".join(f"{token}\n" for token in SPECIAL)


def test_vocabulary_reads_back_what_it_wrote(tmp_path: Path) -> None:
    vocabulary = Vocabulary((*SPECIAL, "a", "größe", "犬"))
    (tmp_path / "vocabulary.txt").write_bytes(vocabulary.as_text().encode())
    assert read_vocabulary(tmp_path / "vocabulary.txt") == vocabulary
    assert len(vocabulary) == 7


def test_ids_are_line_numbers_and_unknown_words_get_the_unknown_id() -> None:
    vocabulary = Vocabulary((*SPECIAL, "a", "dog"))
    assert [vocabulary.id(word) for word in ("a", "dog", "cat", "<end>")] == [4, 5, UNKNOWN, END]


def test_caption_leaves_the_frame_of_a_sentence_out() -> None:
    vocabulary = Vocabulary((*SPECIAL, "a", "dog"))
    assert vocabulary.caption([START, 4, 5, UNKNOWN, END, PAD]) == "a dog <unk>"
    assert vocabulary.caption([]) == ""


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", None, "does not end"),
        (SPECIAL_TEXT + "dog", None, "does not end"),
        ("<pad>\n<start>\n<end>\n", "line 4", "special token"),
        ("<start>\n<pad>\n<end>\n<unk>\n", "line 1", "special token"),
        (SPECIAL_TEXT + "dog\ndog\n", "line 6", "twice"),
        (SPECIAL_TEXT + "<end>\n", "line 5", "twice"),
        (SPECIAL_TEXT + "\n", "line 5", "empty"),
        (SPECIAL_TEXT + "a dog\n", "line 5", "space or a control"),
        (SPECIAL_TEXT + "dog\r\n", "line 5", "space or a control"),
        (SPECIAL_TEXT + "\x1b[31m\n", "line 5", "space or a control"),
        (SPECIAL_TEXT + "a\u202eb\n", "line 5", "space or a control"),
        (SPECIAL_TEXT + "a\u2028b\n", "line 5", "space or a control"),
        (SPECIAL_TEXT + "a\x00\n", "line 5", "space or a control"),
        ("\ufeff" + SPECIAL_TEXT, "line 1", "special token"),
        (SPECIAL_TEXT + "x" * 101 + "\n", "line 5", "longer than 100"),
    ],
)
def test_vocabulary_is_refused_and_the_line_named(text: str, line: str | None, what: str) -> None:
    with pytest.raises(BadVocabulary, match=what) as caught:
        parse_vocabulary(text, "vocabulary.txt")
    assert caught.value.where == ("vocabulary.txt" if line is None else f"vocabulary.txt, {line}")


def test_vocabulary_that_is_not_utf8_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        read_vocabulary(tmp_path / "vocabulary.txt")
    (tmp_path / "vocabulary.txt").write_bytes(SPECIAL_TEXT.encode() + b"caf\xe9\n")
    with pytest.raises(BadVocabulary, match="UTF-8"):
        read_vocabulary(tmp_path / "vocabulary.txt")
