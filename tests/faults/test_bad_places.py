"""Full disks, read-only places, little memory, photos that change meanwhile, clocks that jump, and two commands at once."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_shards
import tiny_training as tiny
from killed import contents

from capprune.data.features import cached_features
from capprune.data.photos import PhotoStore, open_photos
from capprune.data.shards.make import ShardSettings, shard_photos
from capprune.ready import ready_bundle
from capprune.training.run import BEST, read_metrics
from capprune_runtime.errors import PhotoError

SMALL, LARGE = "size=400k", "size=64m"
ADDRESS_SPACE_KIB = {"shard": 300_000, "caption": 165_000}  # enough to start, and too little for the work


def start(*arguments: object, limit: str = "") -> subprocess.Popen[str]:
    command = f'{limit} exec "$@"'
    return subprocess.Popen(
        ["bash", "-c", command, "bash", sys.executable, "-m", "capprune", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    with process:
        output, _ = process.communicate(timeout=200)
    assert "Traceback" not in output and "this is a defect" not in output, output
    return process.returncode, output


def run(*arguments: object, limit: str = "") -> tuple[int, str]:
    return ended(start(*arguments, limit=limit))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "capprune", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 photos that take more than 400 kB as shards."""
    return tiny_shards.photo_folder(tmp_path_factory.mktemp("noise") / "noise", train=150, val=8)


def test_full_disk_is_named_and_the_same_command_continues(data: Path, disk: Path, tmp_path: Path) -> None:
    command = ("data", "shard", data, "--photos-per-shard", 20, "--out", disk / "out")
    code, output = run(*command)
    assert code == 1 and "the disk is full" in output and "run the same command again" in output
    kept = {path.name: path.stat().st_mtime_ns for path in (disk / "out").glob("*.rows")}
    remount(disk, LARGE)
    assert kept and run(*command)[0] == 0
    assert {name: (disk / "out" / name).stat().st_mtime_ns for name in kept} == kept
    shard_photos(data, tmp_path / "whole", ShardSettings(20), cache=tmp_path)
    assert list(contents(disk / "out").values()) == list(contents(tmp_path / "whole").values())


def test_read_only_place_is_a_usage_error(data: Path, disk: Path) -> None:
    remount(disk, "ro")
    for command in (("data", "shard", data), ("pack", ready_bundle()), ("caption", data)):
        out = disk / "out.csv" if command[0] == "caption" else disk / "out"
        code, output = run(*command, "--out", out)
        assert code == 2 and "cannot be written to" in output, output


@pytest.mark.parametrize("command", ["shard", "caption"])
def test_too_little_memory_ends_in_a_message(command: str, data: Path, tmp_path: Path) -> None:
    arguments = ("data", "shard", data) if command == "shard" else ("caption", data / "photos" / "000.png")
    limit = f"ulimit -v {ADDRESS_SPACE_KIB[command]};"
    code, output = run(*arguments, "--out", tmp_path / "out.csv", limit=limit)
    assert code == 1 and "memory" in output, output


@pytest.mark.parametrize("kind", ["vanishes", "turns corrupt"])
def test_photo_that_changes_while_shards_are_written(kind: str, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        photo = folder / "photos" / "061.png"  # in the last shard, of val
        photo.unlink() if kind == "vanishes" else photo.write_bytes(b"x" * photo.stat().st_size)

    for broken in ("stop", "skip"):
        data = tiny_shards.photo_folder(tmp_path / broken, train=60, val=4)
        settings = ShardSettings(8, broken="stop" if broken == "stop" else "skip")

        def progress(done: int, total: int, folder: Path = data) -> None:
            if done == 8:
                change(folder)

        out = tmp_path / f"{broken}-out"
        if broken == "stop":
            with pytest.raises(PhotoError, match=r"061\.png") as caught:
                shard_photos(data, out, settings, cache=tmp_path, progress=progress)
            assert "--broken skip" in str(caught.value.hint) or kind == "vanishes"
        else:
            index = shard_photos(data, out, settings, cache=tmp_path, progress=progress)
            (entry,) = index.left_out()
            assert index.splits == {"train": 60, "val": 3} and entry.names[0].startswith("061.png: ")


class Changes(tiny_shards.Stripes):
    """An encoder during whose first batch a later photo vanishes."""

    def __init__(self, photo: Path) -> None:
        self.photo = photo

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        self.photo.unlink(missing_ok=True)
        return super().__call__(photos)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PhotoStore]:
    with open_photos(tiny_shards.photo_folder(tmp_path / "store", train=40, val=1)) as found:
        yield found


def test_photo_that_vanishes_while_features_are_computed(store: PhotoStore, tmp_path: Path) -> None:
    names = [f"{number:03}.png" for number in range(40)]
    encoder = Changes(store.folder / "photos" / "037.png")
    content = encoder.photo.read_bytes()
    with pytest.raises(PhotoError, match=r"037\.png") as caught:
        cached_features(store, names, encoder=encoder, cache=tmp_path / "a", batch=4)
    assert "data.broken=skip" in str(caught.value.hint)
    encoder.photo.write_bytes(content)
    found = cached_features(store, names, encoder=encoder, cache=tmp_path / "b", batch=4, skip_broken=True)
    assert list(found.broken) == [37] and not found[[37]].any() and found[[36, 38]].any(axis=(1, 2)).all()
    again = cached_features(store, names, encoder=encoder, cache=tmp_path / "b", batch=4, skip_broken=True)
    assert again.broken == found.broken and again.from_cache == 40


def test_training_skips_broken_photos_and_counts_them(tmp_path: Path) -> None:
    data = tiny_shards.photo_folder(tmp_path / "noise", train=12, val=4)
    for name in ("003.png", "013.png"):
        (data / "photos" / name).write_bytes(b"no photo")
    (data / "photos" / "005.png").unlink()
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data: {{folder: {data}, minimum_count: 1}}\nencoder: {{size: 32}}\n"
        "decoder: {embedding: 8, hidden: 8, attention: 8, context: 8}\ntraining: {epochs: 1, photos_per_batch: 4}\n"
    )
    common = ("train", config, "--cache", tmp_path / "cache", "--out")
    code, output = run(*common, tmp_path / "stop")
    assert code == 4 and "005.png" in output
    code, output = run(*common, tmp_path / "skip", "data.broken=skip")
    assert code == 0, output
    assert "skipped photos that do not exist: 1 (005.png)" in output
    assert output.count("skipped photos that cannot be read: 1") == 2 and "003.png" in output and "013.png" in output


def test_clock_that_jumps_changes_neither_weights_nor_durations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.trainer(tmp_path / "steady").run()
    jumps, real = itertools.cycle((-86_400.0, 0.0, 400 * 86_400.0)), time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    tiny.trainer(tmp_path / "jumping").run()
    monkeypatch.undo()
    assert (tmp_path / "jumping" / BEST).read_bytes() == (tmp_path / "steady" / BEST).read_bytes()
    seconds = [float(str(line["seconds"])) for line in read_metrics(tmp_path / "jumping") if "seconds" in line]
    assert seconds and all(0 <= one < 60 for one in seconds)


def test_two_commands_on_one_folder_of_shards_leave_whole_ones(data: Path, tmp_path: Path) -> None:
    command = ("data", "shard", data, "--photos-per-shard", 5, "--out", tmp_path / "out")
    results = [ended(process) for process in [start(*command), start(*command)]]
    assert {code for code, _ in results} <= {0, 2} and 0 in [code for code, _ in results]
    assert all("another process is making these shards" in output for code, output in results if code)
    assert json.loads((tmp_path / "out" / "shards.json").read_text())["shards"][-1]["photos"] == 3
    shard_photos(data, tmp_path / "whole", ShardSettings(5), cache=tmp_path)
    assert list(contents(tmp_path / "out").values()) == list(contents(tmp_path / "whole").values())


def test_two_commands_on_one_table_leave_a_whole_one(data: Path, tmp_path: Path) -> None:
    photos = data / "photos"
    some = sorted(photos.iterdir())[:8]
    processes = [start("caption", *some, "--out", tmp_path / "both.csv") for _ in range(2)]
    assert [ended(process)[0] for process in processes] == [0, 0]
    assert run("caption", *some, "--out", tmp_path / "alone.csv")[0] == 0
    assert (tmp_path / "both.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
