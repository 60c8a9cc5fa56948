"""Leftovers of killed processes are swept, what others write is not, and a folder is replaced without a gap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from capprune_runtime import atomic
from capprune_runtime.atomic import atomic_file, atomic_folder, replaced_folder, write_text
from capprune_runtime.partial import sweep

WRITING = """
import sys, time
from pathlib import Path
from capprune_runtime.atomic import {writer}
with {writer}(Path(sys.argv[1])) as path:
    (path / "inside" if path.is_dir() else path).write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def begin(place: Path, writer: str) -> subprocess.Popen[str]:
    """A process that is in the middle of writing a file or a folder."""
    command = [sys.executable, "-c", WRITING.format(writer=writer), str(place)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("writer", ["atomic_file", "atomic_folder"])
def test_leftovers_of_a_killed_process_are_swept_and_those_of_a_running_one_stay(writer: str, tmp_path: Path) -> None:
    running = begin(tmp_path / "running", writer)
    end(begin(tmp_path / "killed", writer))  # it has swept, and left the other alone
    own = [
        tmp_path / name for name in (".notes.partial", "photo.partial", ".half.ABCDEFGH.partial", ".a.12345678.part")
    ]
    for path in own:
        path.write_text("mine")
    try:
        assert len(hidden(tmp_path)) == 5
        (removed,) = sweep(tmp_path, again=True)
        assert removed.name.startswith(".killed.") and not removed.exists()
        assert sum(name.startswith(".running.") for name in hidden(tmp_path)) == 1
        assert all(path.read_text() == "mine" for path in own)
    finally:
        end(running)
    assert len(sweep(tmp_path, again=True)) == 1


def test_the_next_output_sweeps_its_folder(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "folders").mkdir()
    end(begin(tmp_path / "files" / "a", "atomic_file"))
    end(begin(tmp_path / "folders" / "a", "atomic_folder"))
    with atomic_file(tmp_path / "files" / "b") as path:
        path.write_text("whole")
    with atomic_folder(tmp_path / "folders" / "b") as folder:
        (folder / "c").write_text("whole")
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["b"]
    assert [path.name for path in (tmp_path / "folders").iterdir()] == ["b"]


def test_a_link_with_the_name_of_a_leftover_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / ".a.abcdefgh.partial").symlink_to(tmp_path / "target")
    assert sweep(tmp_path, again=True) == () and (tmp_path / "target").read_text() == "mine"


def test_a_folder_is_replaced_without_a_moment_in_which_it_is_missing(tmp_path: Path) -> None:
    folder, done, missing = tmp_path / "bundle", threading.Event(), list[str]()
    folder.mkdir()

    def look() -> None:
        while not done.is_set():
            if not os.path.lexists(folder):
                missing.append("gap")

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(200):
            with replaced_folder(folder) as new:
                write_text(new / "manifest.json", str(number))
    finally:
        done.set()
        reader.join()
    assert missing == []
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (folder / "manifest.json").read_text() == "199"


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_replaced_folder_is_the_new_one_or_the_old_one(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(atomic, "_exchanged", lambda new, old: False)
    folder = tmp_path / "bundle"
    folder.mkdir(mode=0o750)
    (folder / "old").touch()
    with pytest.raises(KeyboardInterrupt), replaced_folder(folder) as new:
        (new / "new").touch()
        raise KeyboardInterrupt
    assert [path.name for path in folder.iterdir()] == ["old"]
    with replaced_folder(folder) as new:
        (new / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"] and folder.stat().st_mode & 0o777 == 0o750
