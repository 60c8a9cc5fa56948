"""Devices that are not there, precisions that they cannot take, and which process of a training this is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny
import torch
from rank_processes import TOLERANCE, losses

from capprune.training.hardware import chosen_device, chosen_precision, slow_precision
from capprune.training.launch import Place, check_counts, place_of
from capprune_runtime.errors import ConfigError, UsageError

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SLURM = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS_PER_NODE": "4",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_device_that_is_not_there_is_a_usage_error_with_what_was_found() -> None:
    settings = tiny.config("training.device=cuda").training
    with pytest.raises(UsageError, match=r"(?s)expected +cuda.*found +cpu; torch 2.*training.device=cpu") as raised:
        chosen_device(settings, Place())
    assert raised.value.exit_code == 2
    assert chosen_device(tiny.config().training, Place()).type == "cpu"


def test_float16_is_refused_on_a_cpu_with_what_to_take_instead() -> None:
    settings = tiny.config("training.device=cpu", "training.precision=float16").training
    with pytest.raises(UsageError, match=r"(?s)bfloat16 on cpu.*training\.precision=bfloat16"):
        chosen_device(settings, Place())


@pytest.mark.parametrize(
    ("capability", "expected"), [("AVX512", "bfloat16"), ("AVX2", "float32"), ("DEFAULT", "float32")]
)
def test_automatic_precision_is_bfloat16_where_a_cpu_is_fast_at_it(
    capability: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    cpu, settings = torch.device("cpu"), tiny.config("training.precision=auto").training
    assert chosen_precision(settings, cpu) == expected
    assert slow_precision(expected, cpu) is None
    assert (slow_precision("bfloat16", cpu) is None) == (expected == "bfloat16")
    assert chosen_precision(settings, torch.device("mps")) == "float32"
    for given in ("float32", "bfloat16"):
        assert chosen_precision(tiny.config(f"training.precision={given}").training, cpu) == given


def test_training_says_that_a_precision_is_slow_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    told: list[str] = []
    for precision in ("bfloat16", "auto"):
        run = ("training.epochs=1", "training.device=cpu", f"training.precision={precision}")
        tiny.trainer(tmp_path / precision, *run, note=told.append).run()
    assert [line for line in told if "slower" in line] == [
        "bfloat16 is several times slower than float32 on this processor (AVX2, no AVX-512): "
        "training.precision=auto or float32 is faster here"
    ]


def test_more_processes_than_cores_are_refused() -> None:
    many = (os.cpu_count() or 1) + 1
    with pytest.raises(UsageError, match="fewer devices than processes"):
        chosen_device(tiny.config("training.device=cpu").training, Place(0, many, 0, many))


def test_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.device"):
        tiny.config("training.device=tpu")


@pytest.mark.parametrize("environment", [TORCHRUN, SLURM], ids=["torchrun", "slurm"])
def test_place_comes_from_the_environment(environment: dict[str, str]) -> None:
    place = place_of(environment)
    assert place == Place(rank=5, world=8, local=1, local_world=4, node=1, nodes=2)
    assert not place.first
    assert place_of({}) == place_of({**SLURM, "SLURM_NTASKS": "1"}) == Place()


@pytest.mark.parametrize("wrong", [{"LOCAL_RANK": "4"}, {"WORLD_SIZE": "6"}, {"LOCAL_WORLD_SIZE": "many"}])
def test_environment_that_contradicts_itself_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="LOCAL_RANK"):
        place_of({**TORCHRUN, **wrong})


def test_counts_are_compared_with_the_processes_that_there_are() -> None:
    place = place_of(TORCHRUN)
    check_counts(place, None, None)
    check_counts(place, 4, 2)
    with pytest.raises(UsageError, match=r"(?s)--devices.*expected +4.*found +2"):
        check_counts(place, 2, None)
    with pytest.raises(UsageError, match=r"(?s)--nodes.*torchrun --nnodes 3 .*--nproc-per-node 2"):
        check_counts(Place(), 2, 3)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    chosen_device(tiny.config("training.device=cpu").training, Place())
    with pytest.raises(UsageError, match=r"(?s)a C\+\+ compiler.*training\.compile=false") as raised:
        chosen_device(tiny.config("training.device=cpu", "training.compile=true").training, Place())
    assert raised.value.exit_code == 2


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler here")
def test_compiled_training_has_the_losses_of_a_plain_one(tmp_path: Path) -> None:
    """With dropout and drawn masks; in a process of its own, because compiling changes how modules call their kernels."""
    run = (*tiny.SPARSE, "training.epochs=5", "training.photos_per_batch=1", "training.device=cpu")
    tiny.trainer(tmp_path / "plain", *run).run()
    command = [sys.executable, tiny.__file__, str(tmp_path / "compiled"), ",".join((*run, "training.compile=true"))]
    own = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([*command, "SIGTERM", "-1"], capture_output=True, text=True, env=own, timeout=300)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache").rglob("*.so"))  # something was compiled
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), rtol=TOLERANCE)
