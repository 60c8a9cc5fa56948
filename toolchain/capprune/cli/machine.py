"""Options for devices and processes, shared by train, prune and finetune."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from capprune.cli.progress import TerminalProgress
from capprune.training.launch import Place, check_counts, place_of, supervise
from capprune.training.progress import SILENT, Progress

Command = TypeVar("Command", bound=Callable[..., Any])
MOST = 1024  # maximum number of processes per machine, and of machines

_OPTIONS = (
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        help="Device to train on (training.device of the config).",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        help="Number format of matrix products (training.precision of the config).",
    ),
    click.option(
        "--devices",
        type=click.IntRange(1, MOST),
        help="Number of processes on this machine, each with its own GPU.  [default: 1]",
    ),
    click.option(
        "--nodes",
        type=click.IntRange(1, MOST),
        help="Number of machines; torchrun or srun starts the processes.  [default: 1]",
    ),
)


def machine_options(command: Command) -> Command:
    """Add `--device`, `--precision`, `--devices` and `--nodes` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def placed(devices: int | None, nodes: int | None) -> Place:
    """Return the position of this process. If several must be started, run them and exit with their exit code.

    Raises:
        UsageError: The options contradict the existing processes.
        CapPruneError: One of the processes died.
        SystemExit: With the exit code of the processes.
    """
    place = place_of(os.environ)
    check_counts(place, devices, nodes)
    if place.world == 1 and (devices or 1) > 1:
        raise SystemExit(supervise(devices or 1))
    return place


def progress_of(place: Place) -> Progress:
    """Return the progress reporter of a process: the first one prints on stderr, the others are silent."""
    return TerminalProgress() if place.first else SILENT
