"""A real Ray of two workers on this machine: the results of one process, retries, and errors that name what happened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray_tasks
from click.testing import CliRunner, Result
from PIL import Image
from ray_tasks import complains, dies, dies_once, tenfold

from capprune.cli.app import cli
from capprune.data.shards.make import ShardSettings, shard_photos
from capprune.workers import Workers, parse_on
from capprune_runtime.errors import CapPruneError, DataError, UsageError

ON = Workers(2, "")


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A local cluster of two workers, which the commands of this module find connected."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    path = os.pathsep.join([str(Path(ray_tasks.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    module = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)  # what the workers see
        module.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield module
    module.shutdown()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(11):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(noise).resize((200, 160)).save(folder / f"{number:02}.jpg")
    (folder / "05.jpg").write_bytes(b"no photo")
    return folder


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.slow
def test_tasks_come_back_with_their_numbers(ray: Any) -> None:
    assert dict(ON.run(tenfold, range(9))) == {number: 10 * number for number in range(9)}


@pytest.mark.slow
def test_task_of_a_killed_worker_is_tried_again(ray: Any, tmp_path: Path) -> None:
    tasks = [(number, str(tmp_path)) for number in range(4)]
    assert dict(ON.run(dies_once, tasks)) == {number: number for number in range(4)} and (tmp_path / "1").exists()


@pytest.mark.slow
def test_task_whose_worker_always_dies_is_an_error(ray: Any) -> None:
    with pytest.raises(CapPruneError, match="a worker of Ray died while it ran a task, 3 times") as caught:
        dict(ON.run(dies, range(3)))
    assert caught.value.exit_code == 1 and "same command resumes" in str(caught.value.hint)


@pytest.mark.slow
def test_error_of_a_task_is_the_users_error(ray: Any) -> None:
    with pytest.raises(DataError, match="a photo is blue") as caught:
        list(ON.run(complains, [7]))
    assert (caught.value.where, caught.value.expected, caught.value.hint) == ("photo 7", "red", "paint it")


@pytest.mark.slow
def test_captions_are_those_of_one_process(ray: Any, photos: Path, tmp_path: Path) -> None:
    run("caption", photos, "--out", tmp_path / "one.csv", code=4)
    run("caption", photos, "--out", tmp_path / "ray.csv", "--on", "ray", "--workers", 2, code=4)
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert not list(tmp_path.glob(".*"))  # no journal is left


@pytest.mark.slow
def test_features_are_those_of_one_process(ray: Any, tmp_path: Path) -> None:
    import tiny_shards

    data = tiny_shards.photo_folder(tmp_path / "noise", train=9, val=3)
    config = tmp_path / "c.yaml"
    config.write_text("data: {folder: x}\nencoder: {size: 32}\n")
    common = ("data", "features", data, "--config", config, "--photos-per-shard", 4, "--out")
    run(*common, tmp_path / "one")
    run(*common, tmp_path / "ray", "--on", "ray", "--workers", 2)
    one, spread = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "ray"))
    assert spread == one


@pytest.mark.slow
def test_shards_are_captioned_as_their_photos_are(ray: Any, tmp_path: Path) -> None:
    import tiny_shards

    data = tiny_shards.photo_folder(tmp_path / "noise", train=9, val=3)
    shard_photos(data, tmp_path / "shards", ShardSettings(4), cache=tmp_path / "cache")
    outs = {name: tmp_path / f"{name}.csv" for name in ("files", "one", "ray")}
    run("caption", data, "--out", outs["files"])
    run("caption", tmp_path / "shards", "--out", outs["one"])
    run("caption", tmp_path / "shards", "--out", outs["ray"], "--on", "ray", "--workers", 2)
    assert outs["ray"].read_bytes() == outs["one"].read_bytes()
    said = [
        sorted(
            (Path(line.split(",")[0]).name, *line.split(",")[1:]) for line in outs[name].read_text().splitlines()[1:]
        )
        for name in ("files", "one")
    ]
    assert said[0] == said[1] and len(said[0]) == 12


@pytest.mark.slow
def test_sweep_makes_the_table_of_one_process(ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    from capprune.metrics import scores

    monkeypatch.setattr(
        scores, "java_command", lambda: None
    )  # the metrics that need no Java: it costs more than the runs

    run("data", "scenes", "--out", tmp_path / "scenes", "--train", 24, "--val", 6, "--test", 6, "--size", 32)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data: {{folder: {tmp_path / 'scenes'}, minimum_count: 1}}\nencoder: {{size: 32}}\n"
        "decoder: {embedding: 16, hidden: 16, attention: 16, context: 16}\n"
        "training: {epochs: 1, photos_per_batch: 4, learning_rate: 0.01, validation_photos: 4}\n"
        "pruning: {sparsity: 0.8}\n"
    )
    grid = ("--grid", "pruning.method=none,hard")
    documents = []
    for name, more in (("one", ()), ("ray", ("--on", "ray", "--workers", 2))):
        run("sweep", config, *grid, "--out", tmp_path / name, *more)
        document = json.loads((tmp_path / name / "sweep.json").read_text())
        documents.append(
            [{key: row[key] for key in row if key not in ("training", "sizes")} for row in document["rows"]]
        )
        assert all(row["status"] == "done" for row in document["rows"]) and len(document["rows"]) == 2
    assert documents[0] == documents[1]


@pytest.mark.parametrize("text", ["spark", "ray:", "rays", ""])
def test_place_that_is_not_known_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="tasks cannot run there"):
        parse_on(text, None)


@pytest.mark.slow
def test_cluster_that_is_not_there_is_an_error(photos: Path) -> None:
    command = [sys.executable, "-m", "capprune", "caption", str(photos), "--on", "ray:127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1 and "there is no Ray cluster that can be used: 127.0.0.1:1" in done.stderr
