"""Shards of photos: the same bytes each time, and an error with the shard's name for whatever is wrong with them."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import tiny_shards as tiny
from webdataset.tariterators import group_by_keys, tar_file_expander

from capprune.data.captions import load_caption_set
from capprune.data.photos import open_photos
from capprune.data.shards import make as module
from capprune.data.shards.index import INDEX
from capprune.data.shards.make import ShardSettings, shard_photos
from capprune.data.shards.place import ShardPlace
from capprune.data.shards.plan import PlannedShard
from capprune.data.shards.reader import ShardPhotos
from capprune.data.shards.write import UNFINISHED, Made, Output
from capprune.file_lock import locked
from capprune_runtime.errors import DataError, NewerFormat, PhotoError, UsageError

SETTINGS = ShardSettings(photos_per_shard=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.photo_folder(tmp_path_factory.mktemp("noise") / "noise")


@pytest.fixture
def shards(data: Path, tmp_path: Path) -> Path:
    shard_photos(data, tmp_path / "shards", SETTINGS, cache=tmp_path / "cache")
    return tmp_path / "shards"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_all(place: str, cache: Path, split: str = "train") -> dict[str, bytes]:
    opened = ShardPlace(place, cache, open_shards=1)
    photos = ShardPhotos(opened, opened.index.of_split(split))
    try:
        return {photos.row(number).name: photos.content(number) for number in range(len(photos))}
    finally:
        opened.close()


def test_the_same_data_in_another_folder_makes_the_same_bytes(data: Path, shards: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "elsewhere" / "noise")
    shard_photos(tmp_path / "elsewhere" / "noise", tmp_path / "other", SETTINGS, cache=tmp_path / "cache")
    assert contents(tmp_path / "other") == contents(shards)
    assert sorted(contents(shards)) == [INDEX, *(f"train-00000{n}.{end}" for n in range(3) for end in ("rows", "tar")),
                                        "val-000000.rows", "val-000000.tar"]  # fmt: skip


def test_index_counts_and_hashes_what_is_there(data: Path, shards: Path, tmp_path: Path) -> None:
    index = ShardPlace(str(shards), tmp_path).index
    assert index.splits == {"train": 23, "val": 5}
    assert [shard.photos for shard in index.shards] == [8, 8, 7, 5]
    for shard in index.shards:
        assert hashlib.sha256((shards / f"{shard.name}.tar").read_bytes()).hexdigest() == shard.sha256
        assert shard.captions == {"2": shard.photos}
    with open_photos(data) as store:
        assert read_all(str(shards), tmp_path) == {
            name: store.read(name) for name in (f"{number:03}.png" for number in range(23))
        }


def test_webdataset_reads_every_photo_with_its_captions(data: Path, shards: Path) -> None:
    samples = []
    for path in sorted(shards.glob("train-*.tar")):
        with path.open("rb") as file:  # WebDataset(urls) leaves its files open
            samples += group_by_keys(tar_file_expander([{"url": str(path), "stream": file}]))
    captions = {photo.name: list(photo.captions) for photo in load_caption_set(data).split("train")}
    assert {json.loads(one["json"])["name"]: json.loads(one["json"])["captions"] for one in samples} == captions
    assert all(one["png"].startswith(b"\x89PNG") for one in samples)


def test_shards_are_a_data_folder_too(shards: Path) -> None:
    found = load_caption_set(shards)
    assert found.layout == "webdataset" and found.splits == {"train": 23, "val": 5} and not found.left_out


def test_interrupted_command_keeps_whole_shards(
    data: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write, made = tmp_path / "again", module.write_shard, list[str]()

    def stops(*arguments: object) -> Made:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments[1].name)  # type: ignore[attr-defined]
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_shard", stops)
    with pytest.raises(KeyboardInterrupt):
        shard_photos(data, out, SETTINGS, cache=tmp_path)
    assert not (out / INDEX).exists()
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / f"{made[1]}.rows").unlink()  # as a kill between the two files of a shard leaves it
    monkeypatch.setattr(module, "write_shard", write)
    shard_photos(data, out, SETTINGS, cache=tmp_path)
    assert contents(out) == contents(shards)
    assert {path.stem for path, time in times.items() if path.stat().st_mtime_ns == time} == {made[0]}


def test_finished_command_does_nothing_again(data: Path, shards: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in shards.iterdir()}
    shard_photos(data, shards, SETTINGS, cache=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in shards.iterdir()} == before


def test_shards_of_other_settings_are_left_alone(data: Path, shards: Path, tmp_path: Path) -> None:
    before = contents(shards)
    with pytest.raises(UsageError, match="other data or settings"):
        shard_photos(data, shards, ShardSettings(photos_per_shard=9), cache=tmp_path)
    assert contents(shards) == before


def test_a_folder_with_anything_else_in_it_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="something here already"):
        shard_photos(data, tmp_path / "out", SETTINGS, cache=tmp_path)


def test_two_commands_on_one_folder_do_not_meet(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        locked(out / UNFINISHED / "lock"),
        pytest.raises(UsageError, match="another process is making these shards"),
    ):
        shard_photos(data, out, SETTINGS, cache=tmp_path)


def test_photo_that_has_changed_since_the_interruption_is_noticed(tmp_path: Path) -> None:
    data = tiny.photo_folder(tmp_path / "noise", train=4, val=1)
    captions = load_caption_set(data)
    with open_photos(data) as store:
        plan, _ = module.plan_of_folder(captions, store, photos_per_shard=2, splits=None, skip_missing=False)

    def nothing(shards: Sequence[PlannedShard]) -> Iterator[Made]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module.write_all(Output(tmp_path / "out", plan, "photos"), nothing)
    photo = data / "photos" / "001.png"
    photo.write_bytes(photo.read_bytes() + b"\0")
    with pytest.raises(UsageError, match="a photo has changed"):
        shard_photos(data, tmp_path / "out", ShardSettings(photos_per_shard=2), cache=tmp_path)


@pytest.mark.parametrize("kind", ["cut off", "no photo", "vanished"])
def test_photos_that_cannot_be_read_stop_or_are_counted(kind: str, tmp_path: Path) -> None:
    data = tiny.photo_folder(tmp_path / "noise", train=6, val=2)
    photo = data / "photos" / "003.png"
    if kind == "vanished":
        photo.unlink()
    else:
        photo.write_bytes(photo.read_bytes()[:90] if kind == "cut off" else b"hello")
    with pytest.raises(DataError) as caught:
        shard_photos(data, tmp_path / "stop", SETTINGS, cache=tmp_path)
    assert caught.value.exit_code == 4 and "003.png" in str(caught.value)
    index = shard_photos(data, tmp_path / "skip", ShardSettings(8, broken="skip"), cache=tmp_path)
    (entry,) = index.left_out()
    assert index.splits == {"train": 5, "val": 2} and len(entry.names) == 1 and "003.png" in entry.names[0]


def damage(folder: Path, kind: str) -> str:
    """Damage one shard; what the message must name."""
    tar = folder / "train-000001.tar"
    content = bytearray(tar.read_bytes())
    if kind == "missing":
        tar.unlink()
    elif kind == "cut off":
        tar.write_bytes(content[:-2000])
    elif kind == "altered":
        place = bytes(content).index(b"\x89PNG")
        content[place + 40] ^= 1
        tar.write_bytes(content)
    elif kind == "no rows":
        tar.with_suffix(".rows").unlink()
    else:
        rows = tar.with_suffix(".rows")
        rows.write_bytes(rows.read_bytes().replace(b"noise", b"Noise", 1))
    return "train-000001"


KINDS = ["missing", "cut off", "altered", "no rows", "altered rows"]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_shard_is_a_data_error_with_its_name(kind: str, shards: Path, tmp_path: Path) -> None:
    name = damage(shards, kind)
    with pytest.raises(DataError, match=name) as caught:
        read_all(str(shards), tmp_path)
    assert caught.value.exit_code == 4
    assert isinstance(caught.value, PhotoError) is (kind == "altered")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda tree: tree | {"schema": 2}, NewerFormat, "later capprune"),
        (lambda tree: tree | {"kind": "x"}, DataError, "not an index of shards"),
        (lambda tree: tree | {"more": 1}, DataError, "more"),
        (lambda tree: tree | {"content": "features"}, DataError, "encoder"),
        (lambda tree: tree | {"shards": [tree["shards"][0] | {"name": "../x"}]}, DataError, "name"),
    ],
)
def test_broken_index_is_an_error(
    change: functools.partial[dict[str, object]], error: type[Exception], message: str, shards: Path, tmp_path: Path
) -> None:
    (shards / INDEX).write_text(json.dumps(change(json.loads((shards / INDEX).read_text()))))
    with pytest.raises(error, match=message):
        ShardPlace(str(shards), tmp_path)


@pytest.fixture
def server(shards: Path) -> Iterator[str]:
    """The shards behind a real HTTP server on the loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(shards))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_shards_are_read_over_http_and_leave_nothing_behind(server: str, shards: Path, tmp_path: Path) -> None:
    assert read_all(server, tmp_path / "far") == read_all(str(shards), tmp_path)
    assert not list((tmp_path / "far").rglob("*.tar"))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_shard_behind_http_is_a_data_error_with_its_name(
    kind: str, server: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capprune.data.shards.place.PAUSE_S", 0.01)
    name = damage(shards, kind)
    with pytest.raises(DataError, match=name):
        read_all(server, tmp_path)


def test_shards_are_read_from_memory_and_file_urls(shards: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/shards", recursive=True)
    try:
        for url in ("memory://shards", f"file://{shards}"):
            assert read_all(url, tmp_path / "cache") == read_all(str(shards), tmp_path)
    finally:
        memory.rm("/shards", recursive=True)


def test_place_without_an_index_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        ShardPlace(str(tmp_path), tmp_path)
    assert "capprune data shard" in str(caught.value.hint)
    with pytest.raises(DataError, match="no file system is known"):
        ShardPlace("nosuchscheme://host/x", tmp_path)
