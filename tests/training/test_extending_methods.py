"""The pruning method of docs/extending.md, installed as a package of its own; and the table of methods."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from toy_package import EXAMPLES, environment, install

from capprune.config.methods import METHODS, StartsFrom, methods_of_trained_runs
from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.pruning.pruner import Pruner
from capprune.sweeping.grid import expand
from capprune.training.run import read_run
from capprune_runtime.errors import ConfigError

PLACES = {
    "random": "random_pruning:METHOD",
    "no_method": "random_pruning:RandomPruner",
    "no_module": "random_prunning:METHOD",
    "no_pruner": "no_pruner:METHOD",
    "Big-Name": "random_pruning:METHOD",
}
SHORT = ("training.epochs=3", "pruning.sparsity=0.8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = install(tmp_path / "site", "capprune.pruning", PLACES, EXAMPLES / "random_pruning.py")
    lines = "from capprune.config.methods import Method\nMETHOD = Method('random_pruning:Nothing')\n"
    (site / "no_pruner.py").write_text(lines)
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in ("random_pruning", "no_pruner"):
        sys.modules.pop(name, None)


def config(*overrides: str) -> RunConfig:
    return parse_config({"data": {"folder": "nowhere"}}, overrides)


@pytest.mark.usefixtures("installed")
def test_a_method_of_another_package_prunes_is_saved_and_kept_in_tuning(tmp_path: Path) -> None:
    outcome = tiny.trainer(tmp_path / "run", "pruning.method=random", *SHORT).run()
    assert outcome.sparsity == pytest.approx(0.8, abs=2e-3)
    run = read_run(tmp_path / "run")
    assert run.method == "random" and run.config.pruning.method == "random"
    kept = {name: float(mask.float().mean()) for name, mask in run.masks.items()}
    assert max(kept.values()) < 0.4  # chance takes as much of every layer
    start = f"start={tmp_path / 'run'}"
    tiny.trainer(tmp_path / "tuned", "pruning.method=keep", *SHORT, start).run()
    tuned = read_run(tmp_path / "tuned")
    assert tuned.method == "random" and all(torch.equal(mask, tuned.masks[name]) for name, mask in run.masks.items())


@pytest.mark.usefixtures("installed")
def test_sweeps_and_messages_know_it() -> None:
    (run,) = expand(config(), [{"pruning.method": ["random"]}], Path("sweep"))
    assert run.method == "random" and run.start is None
    with pytest.raises(ConfigError, match=r"invalid value for pruning\.method") as caught:
        config("pruning.method=ramdom")
    assert "random" in str(caught.value.expected) and "supermask" in str(caught.value.expected)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("no_method", "no_method is no pruning method"),
        ("no_module", "the pruning method no_module cannot be loaded"),
        ("no_pruner", "a pruner cannot be loaded"),
        ("Big-Name", "invalid value for pruning.method"),
    ],
)
def test_what_cannot_be_used_is_the_users_error(method: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.trainer(tmp_path / "run", f"pruning.method={method}", *SHORT)
    assert caught.value.what == what


@pytest.mark.usefixtures("installed")
def test_a_limit_that_a_method_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not support this limit") as caught:
        tiny.trainer(tmp_path / "run", "pruning.method=random", "pruning.bytes=1000")
    assert caught.value.hint == "set pruning.sparsity, or pruning.method=supermask"


@pytest.mark.slow
def test_the_command_names_methods_and_refuses_those_that_prune_no_trained_run(installed: Path, tmp_path: Path) -> None:
    def prune(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "capprune", "prune", *arguments]
        return subprocess.run(command, env=environment(installed), capture_output=True, text=True, check=False)

    shown = " ".join(prune("--help").stdout.split())
    assert "supermask, gradual, hard, lottery, Big-Name, no_method, no_module, no_pruner, random" in shown
    for method, hint in (("snip", "capprune train CONFIG pruning.method=snip"), ("keep", "capprune finetune RUN")):
        done = prune("RUN", "--method", method, "--out", str(tmp_path / "run"))
        assert done.returncode == 2 and hint in done.stderr
    done = prune("RUN", "--method", "randm", "--out", str(tmp_path / "run"))
    assert done.returncode == 2 and "did you mean random?" in done.stderr


@pytest.mark.parametrize("name", METHODS.own)
def test_methods_of_ours_hold_together(name: str) -> None:
    method = METHODS.load(name, "pruning.method")
    assert issubclass(method.load(), Pruner)
    assert method.prunes is (name != "none")
    assert config(f"pruning.method={name}").pruning.how is method


def test_what_methods_start_from() -> None:
    assert methods_of_trained_runs() == ("supermask", "gradual", "hard", "lottery")
    needing = [name for name in METHODS.own if METHODS.load(name, "x").needs_start]
    assert needing == ["hard", "lottery", "keep"]
    assert METHODS.load("lottery", "x").starts_from is StartsFrom.REWOUND
