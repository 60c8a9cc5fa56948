"""Commands that are killed with `kill -9` at random moments leave what one leaves that was left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import killed
import numpy as np
import pytest
import tiny_shards
from killed import capprune, contents, kill_again_and_again, timed
from PIL import Image

from capprune.ready import ready_bundle
from capprune_runtime.bundle.verify import verify_bundle

OF_THE_MACHINE = ("created", "created_by", "environment", "latency", "memory", "times", "load", "verdict")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_shards.photo_folder(tmp_path_factory.mktemp("noise") / "noise", train=60, val=12)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    folder.mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).resize((300, 300)).save(folder / f"{number:02}.jpg")
    return folder


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "unpacked"
    capprune("unpack", ready_bundle(), "--out", folder)
    return folder


def removed(place: Path) -> Callable[[], None]:
    def remove() -> None:
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)

    return remove


def same(first: Path, second: Path) -> None:
    one, other = contents(first), contents(second)
    assert list(one.values()) == list(other.values()), [
        (a, b) for (a, x), (b, y) in zip(one.items(), other.items(), strict=False) if x != y
    ]


@pytest.mark.slow
def test_killed_sharding_ends_with_the_same_shards(data: Path, tmp_path: Path, slow_kills: int) -> None:
    command = ("data", "shard", data, "--photos-per-shard", 4, "--out")
    seconds = timed(*command, tmp_path / "whole" / "out")
    out = tmp_path / "cut" / "out"
    kill_again_and_again((*command, out), slow_kills or 1, seconds=seconds, seed=1, fresh=removed(out))
    same(tmp_path / "cut" / "out", tmp_path / "whole" / "out")


def test_killed_captioning_ends_with_the_same_table(photos: Path, tmp_path: Path, slow_kills: int) -> None:
    command = ("caption", photos, "--out")
    seconds = timed(*command, tmp_path / "whole.csv")
    out = tmp_path / "cut" / "cut.csv"
    kill_again_and_again((*command, out), slow_kills or 1, seconds=seconds, seed=2, fresh=removed(out))
    assert contents(out)["cut.csv"] == (tmp_path / "whole.csv").read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["cut.csv"]


def test_killed_packing_ends_with_the_same_file(unpacked: Path, tmp_path: Path, slow_kills: int) -> None:
    seconds = timed("pack", unpacked, "--out", tmp_path / "whole.capz")
    out = tmp_path / "cut" / "cut.capz"
    out.parent.mkdir()
    command = ("pack", unpacked, "--out", out)
    kill_again_and_again(command, slow_kills or 1, seconds=seconds, seed=3, fresh=removed(out))
    assert contents(out)["cut.capz"] == (tmp_path / "whole.capz").read_bytes() == ready_bundle().read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_features_end_with_the_same_shards(data: Path, tmp_path: Path, workers: int) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("data: {folder: x}\nencoder: {size: 32}\n")
    command = ("data", "features", data, "--config", config, "--photos-per-shard", 4, "--out")
    seconds = timed(*command, tmp_path / "whole" / "out")
    out = tmp_path / "cut" / "out"
    many = (*command, out, "--workers", workers)
    kill_again_and_again(many, 4, seconds=seconds * workers, seed=workers, fresh=removed(out))
    same(out, tmp_path / "whole" / "out")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    capprune("data", "scenes", "--out", folder, "--train", 24, "--val", 6, "--test", 6, "--size", 64)
    return folder


@pytest.fixture(scope="module")
def run(scenes: Path) -> Path:
    config = scenes.parent / "c.yaml"
    config.write_text(
        f"data: {{folder: {scenes}, minimum_count: 1}}\nencoder: {{size: 64}}\n"
        "decoder: {embedding: 16, hidden: 16, attention: 16, context: 16}\n"
        "training: {epochs: 1, photos_per_batch: 4, learning_rate: 0.01, validation_photos: 4}\n"
    )
    capprune("train", config, "--out", scenes.parent / "run", "--cache", scenes.parent / "cache")
    return scenes.parent / "run"


@pytest.mark.slow
def test_killed_export_and_validation_end_with_the_same_bundle(run: Path, scenes: Path, tmp_path: Path) -> None:
    export = ("export", run, "--weights", "float32", "--out")
    whole, out = tmp_path / "whole" / "bundle", tmp_path / "cut" / "bundle"
    seconds = timed(*export, whole)

    def nothing_half_done() -> None:
        if out.exists():
            verify_bundle(out)

    def none_or_whole() -> None:  # killed between the bundle's arrival and its own end; the next would not overwrite it
        nothing_half_done()
        removed(out)()

    kill_again_and_again((*export, out), 2, seconds=seconds, seed=4, fresh=removed(out), check=none_or_whole)
    assert of_the_model(out) == of_the_model(whole)
    record = ("--data", scenes, "--split", "test", "--record")
    seconds = timed("validate", whole, *record)
    kill_again_and_again(
        ("validate", out, *record), 4, seconds=seconds, seed=5, fresh=lambda: None, check=nothing_half_done
    )
    nothing_half_done()
    assert of_the_model(out) == of_the_model(whole)
    assert quality(out) == quality(whole)


def of_the_model(bundle: Path) -> dict[str, bytes]:
    """The files of a bundle that name no machine and no moment."""
    found = {name.partition("/")[2]: content for name, content in contents(bundle).items()}
    return {name: content for name, content in found.items() if name.endswith((".tflite", ".txt", ".npy", "plan.json"))}


def quality(bundle: Path) -> object:
    """What a validation wrote into a bundle, without what depends on the machine, or on an earlier record (`bundle`)."""

    def plain(tree: object) -> object:
        if isinstance(tree, Mapping):
            return {key: plain(value) for key, value in tree.items() if key not in OF_THE_MACHINE}
        return [plain(one) for one in tree] if isinstance(tree, list) else tree

    written = json.loads((bundle / "quality.json").read_text())
    assert (
        written["bundle"]["files"].items()
        >= {name: len(content) for name, content in of_the_model(bundle).items()}.items()
    )
    return plain({key: value for key, value in written.items() if key != "bundle"})


def test_the_harness_notices_a_command_that_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="this data folder does not exist"):
        killed.capprune("data", "shard", tmp_path / "nowhere", "--out", tmp_path / "x")
