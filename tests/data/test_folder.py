from __future__ import annotations

from pathlib import Path

import pytest

from capprune.data.folder import ending, read_folder, without_ending


@pytest.mark.parametrize("written", [".", "./", "../data", "{data}", "{data}/"])
def test_files_are_named_alike_however_the_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    data = tmp_path / "data"
    (data / "a" / "b").mkdir(parents=True)
    (data / "a" / ".git").mkdir()
    for name in ("1.jpg", "a/2.jpg", "a/b/3.JPG", "a/b/.hidden"):
        (data / name).touch()
    monkeypatch.chdir(data)
    contents = read_folder(Path(written.format(data=data)))
    assert contents.files == ("1.jpg", "a/2.jpg", "a/b/3.JPG")
    assert {entry.what: entry.names for entry in contents.left_out} == {
        "hidden folders": ("a/.git",),
        "hidden files": ("a/b/.hidden",),
    }


def test_name_that_is_not_utf8_is_left_out_and_shown_escaped(tmp_path: Path) -> None:
    Path(bytes(tmp_path).decode() + "/latin1-\udce9.jpg").touch()
    (tmp_path / "1.jpg").touch()
    contents = read_folder(tmp_path)
    assert contents.files == ("1.jpg",)
    assert [(entry.what, entry.names) for entry in contents.left_out] == [
        ("files whose names are not UTF-8", ("latin1-\\udce9.jpg",))
    ]


def test_endings_are_small_and_names_keep_their_dots() -> None:
    assert (ending("a.b/c.d.JPG"), without_ending("a.b/c.d.JPG")) == (".jpg", "a.b/c.d")
    assert (ending("a.b/c"), ending(".hidden"), without_ending("a.b/c")) == ("", "", "a.b/c")
