"""Features as shards: the same bytes from any workers, and an index made of the shards' own rows."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_shards as tiny

from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.data.features import cached_features
from capprune.data.photos import open_photos
from capprune.data.shards.index import INDEX
from capprune.data.shards.make import ShardSettings, shard_photos
from capprune.data.shards.place import ShardPlace
from capprune.data.shards.reader import ShardPhotos
from capprune.models.caption_model import FeatureExtractor, GridEncoder
from capprune.training.feature_shards import plan_features, write_features
from capprune.workers import Workers
from capprune_runtime.errors import ConfigError, DataError, UsageError

SETTINGS = ShardSettings(photos_per_shard=4)


def config(*overrides: str) -> RunConfig:
    tree = {"data": {"folder": "x"}, "encoder": {"size": 32}, "decoder": {"embedding": 8, "hidden": 8}}
    return parse_config(tree, overrides)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photo_folder(tmp_path_factory.mktemp("noise") / "noise", train=9, val=3)


def made(source: Path, out: Path, workers: int = 1, settings: ShardSettings = SETTINGS) -> dict[str, bytes]:
    planned = plan_features(str(source), out, config(), settings, cache=out.parent / "cache")
    write_features(planned, settings, workers=Workers(workers), cache=out.parent / "cache")
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_workers_make_the_same_bytes(data: Path, tmp_path: Path, workers: int) -> None:
    alone = made(data, tmp_path / "alone")
    assert made(data, tmp_path / "many", workers) == alone
    assert sum(name.endswith(".tar") for name in alone) == 4


def test_shards_hold_the_features_of_the_cache(data: Path, tmp_path: Path) -> None:
    made(data, tmp_path / "out")
    place = ShardPlace(str(tmp_path / "out"), tmp_path)
    photos = ShardPhotos(place, place.index.of_split("train"))
    names = [photos.row(number).name for number in range(len(photos))]
    encoder = FeatureExtractor(GridEncoder(config().encoder))
    with open_photos(data) as store:
        cached = cached_features(store, names, encoder=encoder, cache=tmp_path / "cache")
    stored = np.stack([np.load(io.BytesIO(photos.content(number))) for number in range(len(photos))])
    assert stored.dtype == np.float16 and np.abs(stored - cached[range(len(names))]).max() < 1e-2
    assert place.index.encoder is not None and place.index.encoder.key == encoder.key


def test_shards_of_photos_give_shards_of_features(data: Path, tmp_path: Path) -> None:
    shard_photos(data, tmp_path / "photos", SETTINGS, cache=tmp_path)
    from_folder, from_shards = made(data, tmp_path / "a"), made(tmp_path / "photos", tmp_path / "b")
    assert {n: b for n, b in from_folder.items() if n != INDEX} == {n: b for n, b in from_shards.items() if n != INDEX}
    with pytest.raises(UsageError, match="hold features already"):
        made(tmp_path / "a", tmp_path / "c")


def test_interrupted_command_continues_and_the_index_is_made_of_the_rows(data: Path, tmp_path: Path) -> None:
    whole = made(data, tmp_path / "whole")
    out = tmp_path / "cut"
    planned = plan_features(str(data), out, config(), SETTINGS, cache=tmp_path)

    class Stops(Workers):
        def run(self, function, tasks: Sequence[object]):  # type: ignore[no-untyped-def]
            for number, result in super().run(function, tasks):
                if number == 2:
                    raise KeyboardInterrupt
                yield number, result

    with pytest.raises(KeyboardInterrupt):
        write_features(planned, SETTINGS, workers=Stops(), cache=tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert made(data, out) == whole and len(times) == 3
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times


def test_broken_photo_stops_every_worker_or_is_counted(data: Path, tmp_path: Path) -> None:
    broken = tiny.photo_folder(tmp_path / "noise", train=6, val=2)
    (broken / "photos" / "004.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"004\.png"):
        made(broken, tmp_path / "stop")
    index = json.loads(made(broken, tmp_path / "skip", settings=ShardSettings(4, broken="skip"))[INDEX])
    assert sum(shard["photos"] for shard in index["shards"]) == 7
    assert [one["names"][0].partition(":")[0] for one in index["skipped"]] == ["004.png"]


def test_encoder_that_learns_has_no_features_to_keep(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no features to compute once"):
        plan_features(str(data), tmp_path / "x", config("encoder.train=all"), SETTINGS, cache=tmp_path)


KILLED = """
import os, signal, sys
from capprune.workers import Workers
def die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
if __name__ == "__main__":
    from capprune_runtime.errors import CapPruneError
    try:
        print(list(Workers(2).run(die, [0, 1, 2])))
    except CapPruneError as error:
        print(error)
"""

ORPHANS = """
import os, sys, time
from capprune.workers import Workers
def rest(number):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece: two workers write at once
    time.sleep(60)
if __name__ == "__main__":
    list(Workers(2).run(rest, [0, 1]))
"""


def test_killed_worker_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    done = subprocess.run([sys.executable, tmp_path / "killed.py"], capture_output=True, text=True, timeout=120)
    assert "a worker process was killed" in done.stdout and not done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the workers for a while")
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "orphans.py").write_text(ORPHANS)
    with subprocess.Popen([sys.executable, tmp_path / "orphans.py"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    ends = time.monotonic() + 30
    while time.monotonic() < ends and any(map(alive, workers)):
        time.sleep(0.1)
    assert not any(map(alive, workers))


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
