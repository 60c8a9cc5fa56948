"""The processes of one training run: which one this is, and how one command starts several.

A training run with N processes is the same command N times. `torchrun` and SLURM's `srun` start them. Without these,
`supervise` starts them on one machine. Each process reads its rank from environment variables, which have the names of
`torchrun`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import IO

from capprune_runtime.errors import CapPruneError, UsageError
from capprune_runtime.stopping import INTERRUPTED, TERMINATED, stopping_signals

STARTED_BY = "CAPPRUNE_STARTED_BY"  # id of the process that started this one and ends with it
PATIENCE = 45.0  # seconds that processes have to end after one has died
POLL = 0.1  # seconds
PORT = 29500  # default of torchrun if MASTER_PORT is not set
LOST_HINT = "the same command resumes from the last saved state"


@dataclass(frozen=True)
class Place:
    """Position of this process among those of a training run.

    Attributes:
        rank: From 0, over all machines. Rank 0 writes the run and prints messages.
        world: Number of all processes.
        local: From 0, on this machine; also the number of its GPU.
        local_world: Number of processes on this machine.
        node: Number of this machine, from 0.
        nodes: Number of machines.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    local_world: int = 1
    node: int = 0
    nodes: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0


def place_of(environment: Mapping[str, str]) -> Place:
    """Read the position of this process from the environment; a single process if no variables are set.

    Raises:
        UsageError: The environment contradicts itself.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    elif int(environment.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_ID" in environment:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")
    else:
        return Place()
    try:
        rank, world, local, local_world = (int(environment[name]) for name in names)
    except (KeyError, ValueError) as error:
        hint = "start the processes with torchrun, or with srun --ntasks-per-node=N"
        raise UsageError(
            "the rank of this process is unknown", where=", ".join(names), found=error, hint=hint
        ) from error
    if not (0 <= local < local_world and 0 <= rank < world and world % local_world == 0):
        raise UsageError(
            "processes must be spread evenly over the machines",
            where=", ".join(names),
            found=f"process {rank} of {world}, {local} of {local_world} on this machine",
        )
    return Place(rank, world, local, local_world, rank // local_world, world // local_world)


def check_counts(place: Place, devices: int | None, nodes: int | None) -> None:
    """Compare `--devices` and `--nodes` with the existing processes.

    Raises:
        UsageError: They differ, or other machines are requested and nothing has started their processes.
    """
    if place.world == 1 and (nodes or 1) > 1:
        raise UsageError(
            "the processes of several machines are started on each of them",
            where="--nodes",
            found=nodes,
            hint=f"on each: torchrun --nnodes {nodes} --node-rank I --nproc-per-node {devices or 1} "
            "--master-addr FIRST -m capprune train ...",
        )
    for option, wanted, there in (("--devices", devices, place.local_world), ("--nodes", nodes, place.nodes)):
        if place.world > 1 and wanted is not None and wanted != there:
            raise UsageError(
                "the processes were started in another number", where=option, expected=there, found=wanted,
                hint="leave the option out: torchrun and srun decide",
            )  # fmt: skip


def supervise(count: int) -> int:
    """Run this command in several processes on this machine, and wait for all of them.

    Signals are forwarded. If a process dies, the others stop by themselves (see `capprune.training.pulse`). They are
    killed after `PATIENCE` seconds.

    Args:
        count: Number of processes.

    Returns:
        The exit code of the command.

    Raises:
        CapPruneError: A process died; the message names it.
    """
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        processes = [_start(rank, count, port, outputs[rank]) for port in [_free_port()] for rank in range(count)]
        stack.callback(_end, processes)
        asked: list[int] = []

        def hand_on(number: int, frame: FrameType | None) -> None:
            asked.append(number)
            for process in processes:
                if process.poll() is None:
                    process.send_signal(number)

        before = {number: signal.signal(number, hand_on) for number in stopping_signals()}
        stack.callback(lambda: [signal.signal(number, handler) for number, handler in before.items()])
        ended = _wait(processes)
        if asked:
            return INTERRUPTED if asked[0] == signal.SIGINT else TERMINATED
        return _verdict(ended, processes, outputs)


def _start(rank: int, count: int, port: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    own: dict[str, object] = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_PORT": port,
    }
    own |= {"NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", STARTED_BY: os.getpid()}
    environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    command = [sys.executable, "-m", "capprune", *sys.argv[1:]]
    quiet = None if rank == 0 else output
    # its own process group: Ctrl-C on a terminal would reach it twice, and the second signal ends it at once
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=quiet, stderr=quiet, start_new_session=True
    )


def _wait(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """Wait until all have ended; returns their ranks in the order in which they ended."""
    ended: list[int] = []
    deadline: float | None = None
    while len(ended) < len(processes):
        for rank, process in enumerate(processes):
            if rank not in ended and process.poll() is not None:
                ended.append(rank)
                if process.returncode and deadline is None:
                    deadline = time.monotonic() + PATIENCE
        if deadline is not None and time.monotonic() > deadline:
            _end(processes)
        time.sleep(POLL)
    return ended


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def _verdict(ended: list[int], processes: list[subprocess.Popen[bytes]], outputs: Sequence[IO[bytes]]) -> int:
    codes = [process.returncode for process in processes]
    failed = [rank for rank in ended if codes[rank]]
    killed = [rank for rank in failed if codes[rank] < 0]
    if not failed:
        return 0
    if len(failed) == len(codes) and len(set(codes)) == 1 and codes[0] > 0:
        return codes[0]  # the same error in all of them, printed by rank 0
    culprit = (killed or failed)[0]
    if culprit == 0 and codes[0] > 0:
        return codes[0]
    outputs[culprit].seek(0)
    words = outputs[culprit].read().decode(errors="replace").strip().splitlines()
    number = -codes[culprit]
    reason = f"killed by {signal.Signals(number).name}" if number > 0 else f"exit code {codes[culprit]}"
    raise CapPruneError(
        f"a process of this training has ended: rank {culprit} of {len(codes)} (process {processes[culprit].pid})",
        found="\n            ".join([reason, *words[-5:]]),
        hint=LOST_HINT,
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
