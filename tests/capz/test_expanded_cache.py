"""The cache of expanded files: nothing in it is trusted, and nothing depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packed_bundle import Packed

from capprune_runtime.bundle import cache as expanded
from capprune_runtime.bundle import capz_pieces
from capprune_runtime.bundle.cache import expanded_cache
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.errors import HashMismatch

MODELS = ("decoder.tflite", "encoder.tflite")


def kept_in(folder: Path) -> dict[str, bytes]:
    """The cache's files by what they should hold: a name is the SHA-256 of the content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def expected_in(packed: Packed) -> dict[str, bytes]:
    manifest = packed.bundle.manifest
    return {manifest.files[name].sha256: packed.bundle.files[name] for name in MODELS}


def refuse_to_expand(monkeypatch: pytest.MonkeyPatch) -> None:
    def expand(*_: object) -> bytes:
        raise AssertionError("a file was expanded")

    monkeypatch.setattr(capz_pieces, "expand_pieces", expand)


def test_second_reading_expands_nothing_and_gives_the_same_files(
    packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify_bundle(packed.place, tmp_path).files == packed.bundle.files
    assert kept_in(tmp_path) == expected_in(packed)
    refuse_to_expand(monkeypatch)
    assert verify_bundle(packed.place, tmp_path).files == packed.bundle.files
    with pytest.raises(AssertionError, match="expanded"):
        verify_bundle(packed.place)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link_elsewhere(path: Path) -> None:
    other = path.with_name(f"elsewhere-{path.name}")
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize(
    "tamper",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(b""),
        link_elsewhere,
        lambda path: path.unlink(),
    ],
    ids=["one bit", "shorter", "longer", "empty", "a link", "gone"],
)
def test_changed_entry_is_detected_and_replaced(packed: Packed, tmp_path: Path, tamper: Callable[[Path], None]) -> None:
    verify_bundle(packed.place, tmp_path)
    for name in expected_in(packed):
        tamper(tmp_path / name)
    assert verify_bundle(packed.place, tmp_path).files == packed.bundle.files
    assert expected_in(packed).items() <= kept_in(tmp_path).items()
    assert not any((tmp_path / name).is_symlink() for name in expected_in(packed))


def test_entries_that_changed_places_are_detected(packed: Packed, tmp_path: Path) -> None:
    verify_bundle(packed.place, tmp_path)
    one, other = (tmp_path / name for name in expected_in(packed))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert verify_bundle(packed.place, tmp_path).files == packed.bundle.files
    assert kept_in(tmp_path) == expected_in(packed)


def test_folder_in_the_place_of_an_entry_costs_time_only(packed: Packed, tmp_path: Path) -> None:
    for name in expected_in(packed):
        (tmp_path / name / "x").mkdir(parents=True)
    assert verify_bundle(packed.place, tmp_path).files == packed.bundle.files


def test_packed_bundle_that_changed_is_refused_whatever_the_cache_has(packed: Packed, tmp_path: Path) -> None:
    verify_bundle(packed.place, tmp_path / "cache")
    broken = tmp_path / "broken.capz"
    broken.write_bytes(packed.data)
    flip(broken)
    with pytest.raises(HashMismatch):
        verify_bundle(broken, tmp_path / "cache")


def test_oldest_entries_go_when_all_become_too_large(
    packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expanded, "MOST_CACHED_BYTES", sum(map(len, expected_in(packed).values())) + 100)
    for age, name in enumerate(("new", "old", "older")):
        (tmp_path / name).write_bytes(bytes(60))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    verify_bundle(packed.place, tmp_path)
    assert kept_in(tmp_path).keys() == {"new", *expected_in(packed)}


def caption(packed: Packed, cache: Path | str) -> subprocess.Popen[str]:
    photo = next((packed.folder / "golden").glob("*.png"))
    command = [sys.executable, "-m", "capprune", "caption", str(photo), "--bundle", str(packed.place)]
    environment = {**os.environ, "CAPPRUNE_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_variable_moves_the_cache_and_two_processes_share_it(packed: Packed, tmp_path: Path) -> None:
    both = [caption(packed, tmp_path) for _ in range(2)]
    ended = [(*process.communicate(), process.returncode) for process in both]
    assert ended[0] == ended[1] and ended[0][1:] == ("", 0)
    assert kept_in(tmp_path / "expanded") == expected_in(packed)


def test_cache_that_cannot_be_written_to_costs_time_only(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    processes = [caption(packed, place) for place in (tmp_path / "file" / "cache", "/proc/capprune", tmp_path / "x")]
    ended = [(*process.communicate(), process.returncode) for process in processes]
    assert ended[0] == ended[1] == ended[2] and ended[0][1:] == ("", 0)
    assert (tmp_path / "x").is_dir()


def test_cache_is_in_the_home_folder_unless_the_variable_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPPRUNE_CACHE", "/somewhere")
    assert expanded_cache() == Path("/somewhere/expanded")
    monkeypatch.setenv("CAPPRUNE_CACHE", "")
    monkeypatch.setenv("HOME", "/home/x")
    assert expanded_cache() == Path("/home/x/.cache/capprune/expanded")
