"""Devices that are not there, precisions that they cannot take, and which process of a training this is."""

from __future__ import annotations

import os

import pytest
import tiny_training as tiny
import torch

from capprune.training.hardware import chosen_device
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
