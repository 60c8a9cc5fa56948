"""A bundle whose captions repeat nothing, from a run that was trained without such a limit."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from capprune.api.validation import validate
from capprune.cli.app import cli
from capprune.config.reading import parse_config
from capprune.data.scenes import draw_scenes
from capprune.trained import TrainedCaptioner
from capprune.training.run import load_run
from capprune.training.session import train_run
from capprune_runtime.bundle.verify import verify_bundle


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    draw_scenes(folder, count={"train": 6, "val": 6}, seed=0, size=64)
    return folder


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "short"
    tree = {"data": {"folder": str(scenes), "minimum_count": 1}, "encoder": {"size": 64, "grid": 1}}
    train_run(parse_config(tree, ("training.epochs=1", "decoder.hidden=16")), folder, folder.parent / "cache")
    return folder


def repeated(captions: list[str]) -> list[str]:
    return [one for one in captions if len(set(one.split())) < len(one.split())]


def test_export_forbids_repeats_and_validate_searches_as_the_bundle_does(
    run: Path, scenes: Path, tmp_path: Path
) -> None:
    made: dict[str, list[str]] = {}
    for name, options in {"plain": [], "limited": ["--no-repeat-ngram", "1"]}.items():
        out = tmp_path / name
        command = ["export", str(run), "--target", "onnx", "--weights", "float32", *options, "--out", str(out)]
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
        result = validate(out, data=scenes, split="val", reference=run)
        assert [one.identical for one in result.parity.values()] == [6], name
        made[name] = [one.caption for one in result.validation.measurement.captions]
    limited = verify_bundle(tmp_path / "limited").manifest
    assert limited.decoding.no_repeat_ngram == 1 and limited.config["search"] == {"no_repeat_ngram": 1}
    assert verify_bundle(tmp_path / "plain").manifest.decoding.no_repeat_ngram == 0
    assert repeated(made["plain"]) and not repeated(made["limited"])


def test_a_run_can_be_searched_with_another_limit(run: Path) -> None:
    loaded = load_run(run)
    assert loaded.without_repeats(None) is loaded
    limited = loaded.without_repeats(2)
    assert (loaded.config.search.no_repeat_ngram, limited.config.search.no_repeat_ngram) == (0, 2)
    assert TrainedCaptioner(limited)._run.model is loaded.model


def test_a_limit_beyond_the_format_is_refused(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", str(run), "--no-repeat-ngram", "9", "--out", str(tmp_path / "none")])
    assert done.exit_code == 2 and "0<=x<=8" in done.output and not (tmp_path / "none").exists()
