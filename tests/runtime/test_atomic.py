from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from capprune_runtime.atomic import atomic_file, atomic_folder, write_bytes, write_text
from capprune_runtime.errors import CapPruneError, UsageError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing_fsync(number: int) -> Callable[[int], None]:
    """What a disk does that notices only when it is flushed."""

    def fsync(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


def test_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "file"
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


def test_error_in_the_block_passes_through_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as unfinished:
        unfinished.write_bytes(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_written_text_is_utf8_and_may_be_read_by_others_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "größe\n")
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_bytes() == b"gr\xc3\xb6\xc3\x9fe\n"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_full_disk_leaves_the_old_file_and_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failing_fsync(errno.ENOSPC))
    with pytest.raises(CapPruneError, match=rf"(?s)disk is full: {path}.*2,000 bytes free") as raised:
        write_bytes(path, bytes(2000))
    assert raised.value.exit_code == 1
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_exhausted_quota_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing_fsync(errno.EDQUOT))
    with pytest.raises(CapPruneError, match="disk is full"):
        write_bytes(tmp_path / "file", b"new")


def test_full_disk_that_a_library_reports_in_its_own_type_is_understood(tmp_path: Path) -> None:
    with pytest.raises(CapPruneError, match="disk is full"), atomic_file(tmp_path / "file"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert names(tmp_path) == []


def test_full_disk_under_a_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CapPruneError, match="disk is full"), atomic_folder(tmp_path / "out") as unfinished:
        (unfinished / "first").write_bytes(b"whole")
        Path("/dev/full").write_bytes(b"x")
    assert names(tmp_path) == []


def test_place_under_a_file_is_a_usage_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(UsageError, match=r"(?s)cannot be written to: .*plain/file.*(File exists|Not a directory)"):
        write_bytes(tmp_path / "plain" / "file", b"new")


def test_other_errors_of_the_block_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file"):
        (tmp_path / "elsewhere").read_bytes()
    assert names(tmp_path) == []


def test_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "made" / "out") as unfinished:
        (unfinished / "file").touch()
        assert not (tmp_path / "made" / "out").exists()
    assert names(tmp_path / "made" / "out") == ["file"]
    assert names(tmp_path / "made") == ["out"]


def test_folder_with_something_in_it_is_refused_before_the_block_runs(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(UsageError, match="something here already"), atomic_folder(tmp_path):
        pytest.fail("the block ran")
    assert names(tmp_path) == ["mine"]


def test_folder_filled_by_another_in_the_meantime_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written to"), atomic_folder(tmp_path / "out") as unfinished:
        (unfinished / "mine").touch()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


def test_current_folder_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_folder(Path()) as unfinished:
        (unfinished / "file").touch()
    assert names(tmp_path / "here") == ["file"]
