"""The family of docs/extending.md, installed as a package of its own: trained, pruned, exported, packed and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_package import EXAMPLES, environment, install

from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Captioner

ROOT = Path(__file__).parents[2]
FAMILY = "decoder={family: plain_rnn, embedding: 32, hidden: 48}"
SMALL = ("encoder={size: 32}", "training={epochs: 25, photos_per_batch: 8, learning_rate: 1e-2, validation_photos: 8}")


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment that has the package."""
    site = install(
        tmp_path / "site", "capprune.decoders", {"plain_rnn": "plain_rnn:PlainRnn"}, EXAMPLES / "plain_rnn.py"
    )
    return {**environment(site), "CAPPRUNE_CACHE": str(tmp_path / "cache")}


def capprune(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "capprune", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def done(environment: dict[str, str], *arguments: object) -> str:
    found = capprune(environment, *arguments)
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout


@pytest.mark.slow
def test_a_family_of_another_package_goes_the_whole_way(installed: dict[str, str], tmp_path: Path) -> None:
    data, run, bundle = tmp_path / "scenes", tmp_path / "run", tmp_path / "bundle"
    done(installed, "data", "scenes", "--out", data, "--train", 48, "--val", 8, "--test", 4)
    pruned = ("pruning.method=supermask", "pruning.sparsity=0.5")
    config = ROOT / "configs" / "scenes.yaml"
    done(installed, "train", config, f"data.folder={data}", FAMILY, *SMALL, *pruned, "--out", run)
    done(installed, "export", run, "--out", bundle, "--pack")
    verified = verify_bundle(bundle.with_suffix(".capz"))
    assert verified.manifest.model.family == "plain_rnn"
    assert verified.manifest.pruning.sparsity == pytest.approx(0.5, abs=0.05)
    assert Captioner(verified).step.interface.regions is None
    photo = next((data / "photos").glob("*.png"))
    # the bundle runs where the family's package is not installed
    said = json.loads(done({**os.environ}, "caption", photo, "--bundle", bundle, "--json"))
    assert said["captions"][0]["caption"]
    refused = capprune({**os.environ}, "caption", photo, "--bundle", bundle, "--explain", tmp_path / "looked")
    assert refused.returncode == 2 and "no attention to show" in refused.stderr


def test_a_family_that_is_not_installed_is_named(tmp_path: Path) -> None:
    config = ROOT / "configs" / "scenes.yaml"
    found = capprune({**os.environ}, "train", config, "data.folder=x", FAMILY, "--out", tmp_path / "run")
    assert found.returncode == 2 and "no such decoder family" in found.stderr and "soft_attention" in found.stderr


def test_a_family_that_cannot_be_imported_is_the_users_error(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "site" / "plain_rnn.py").write_text("import nothing_of_this_name\n")
    config = ROOT / "configs" / "scenes.yaml"
    found = capprune(installed, "train", config, "data.folder=x", FAMILY, "--out", tmp_path / "run")
    assert found.returncode == 2 and "cannot be loaded" in found.stderr and "nothing_of_this_name" in found.stderr
