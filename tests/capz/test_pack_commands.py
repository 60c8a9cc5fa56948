"""`capprune pack` and `unpack` as a user types them, and the commands that take a packed bundle as it is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from packed_bundle import Packed

sys.path.append(str(Path(__file__).parents[1]))
from cli.conftest import capprune


@pytest.fixture
def folder(packed: Packed, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed.folder, tmp_path / "bundle"))


def test_pack_writes_beside_the_bundle_and_says_what_to_do_next(packed: Packed, folder: Path) -> None:
    done = capprune("pack", folder)
    assert done.code == 0, done.err
    out = folder.with_name("bundle.capz")
    assert out.read_bytes() == packed.data
    assert f"{len(packed.data):,} of " in done.out and f"next: capprune verify {out}" in done.out


def test_pack_and_unpack_in_json(packed: Packed, folder: Path) -> None:
    out = folder.parent / "small.capz"
    document = capprune("pack", folder, "--out", out, "--json").document
    assert document["schema_version"] == 1 and document["packed_bytes"] == out.stat().st_size
    assert {one["name"] for one in document["files"]} == set(packed.bundle.files)
    tensor = document["tensors"][0]
    assert {"file", "name", "shape", "kept", "file_bytes", "coded_bytes", "floor_bytes"} == tensor.keys()
    again = folder.parent / "again"
    unpacked = capprune("unpack", out, "--out", again, "--json").document
    assert unpacked["files"] == {name: len(data) for name, data in packed.bundle.files.items()}
    for name, data in packed.bundle.files.items():
        assert (again / name).read_bytes() == data


def test_packed_bundle_is_taken_by_every_command_that_runs_a_bundle(packed: Packed, folder: Path) -> None:
    photo = packed.folder / "golden" / "scene-0.png"
    assert capprune("verify", packed.place).code == 0
    shown = capprune("inspect", packed.place, "--json").document
    assert shown["ledger"] == capprune("inspect", folder, "--json").document["ledger"]
    said = [capprune("caption", photo, "--bundle", place) for place in (folder, packed.place)]
    assert said[0].code == said[1].code == 0 and said[0].out == said[1].out


@pytest.mark.parametrize("command", [("verify",), ("inspect",), ("pack", "--out", "x.capz"), ("unpack", "--out", "x")])
def test_a_damaged_packed_bundle_ends_with_5(packed: Packed, tmp_path: Path, command: tuple[str, ...]) -> None:
    place = tmp_path / "damaged.capz"
    place.write_bytes(packed.data[:-40])
    arguments = [tmp_path / part if part.startswith("x") else part for part in command[1:]]
    done = capprune(command[0], place, *arguments)
    assert done.code == 5 and "damaged.capz" in done.err and "cut off" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.capz"]


def test_what_is_not_there_and_what_is_there_already_are_usage_errors(packed: Packed, tmp_path: Path) -> None:
    assert capprune("pack", tmp_path / "none").code == 2
    assert capprune("unpack", tmp_path / "none.capz", "--out", tmp_path / "out").code == 2
    assert capprune("unpack", packed.place).code == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    done = capprune("unpack", packed.place, "--out", tmp_path / "full")
    assert done.code == 2 and "already" in done.err
    assert capprune("pack", packed.folder, "--out", tmp_path / "bundle.zip").code == 2
