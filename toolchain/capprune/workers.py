"""Runs tasks in processes of this machine or on a Ray cluster, with the same results.

A function and its tasks must be picklable. Every worker computes with one thread, so that results are bit-identical for any
number of workers.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from capprune_runtime import stopping
from capprune_runtime.errors import CapPruneError, MissingExtra, UsageError, error_from_json

RAY: Final = "ray"
RETRIES: Final = 2  # retries of a task whose worker died
QUEUED: Final = 4  # tasks per worker that are submitted in advance
LOOK_S: Final = 0.5  # seconds between checks for Ctrl-C while waiting
CONNECT_S: Final = 10.0  # seconds to wait for the first byte of a cluster
DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workers:
    """The workers that run tasks.

    Attributes:
        count: Number of processes on this machine, or in the local Ray cluster; 1 without Ray runs in this process.
        ray: Address of a Ray cluster, "" for a local one that is started and stopped, or None for processes without Ray.
    """

    count: int = 1
    ray: str | None = None

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Run a function on every task. Yields the number and the result of each task when it is finished.

        Raises:
            CapPruneError: The function raised it, or a worker died.
            MissingExtra: Ray is not installed.
        """
        if not tasks:
            return iter(())
        if self.ray is not None:
            return _on_ray(function, tasks, self.ray, self.count)
        return _here(function, tasks) if self.count == 1 else _in_processes(function, tasks, self.count)

    def opened(self) -> AbstractContextManager[None]:
        """Return a context that keeps the connection to a Ray cluster, if there is one, for several calls of `run`."""
        return nullcontext() if self.ray is None else _cluster(_ray(), self.ray, self.count)


def parse_on(text: str | None, workers: int | None) -> Workers:
    """Read `--on` and `--workers`.

    Raises:
        UsageError: `--on` is neither `ray` nor `ray:ADDRESS`.
    """
    if text is None:
        return Workers(workers or 1)
    kind, colon, address = text.partition(":")
    if kind != RAY or (colon and not address):
        raise UsageError("tasks cannot run there", where="--on", expected="ray or ray:ADDRESS", found=text)
    return Workers(workers or os.cpu_count() or 1, address)


def _here(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
    with _one_thread():
        for number, task in enumerate(tasks):
            yield number, function(task)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread, if it is used."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], count: int
) -> Iterator[tuple[int, Result]]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    pool = ProcessPoolExecutor(min(count, len(tasks)), mp_context=context, initializer=_begin_worker)
    waiting: dict[Future[Result], int] = {}
    left = iter(enumerate(tasks))
    try:
        while True:
            while len(waiting) < QUEUED * count and (one := next(left, None)) is not None:
                waiting[pool.submit(function, one[1])] = one[0]
            if not waiting:
                return
            for future in wait(waiting, timeout=LOOK_S, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
            stopping.raise_if_requested()
    except BrokenProcessPool as error:
        raise CapPruneError(
            "a worker process was killed",
            hint="the machine may be short of memory: use fewer --workers; the same command resumes",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    if sys.platform == "linux":  # end with the parent, for any reason
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    os.environ["OMP_NUM_THREADS"] = "1"


def _on_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], address: str, count: int
) -> Iterator[tuple[int, Result]]:
    ray = _ray()
    with _cluster(ray, address, count):
        remote = ray.remote(max_retries=RETRIES, num_cpus=1)(_caught)
        waiting: dict[Any, int] = {}
        left = iter(enumerate(tasks))
        most = QUEUED * max(count, int(ray.cluster_resources().get("CPU", 1)))
        try:
            while True:
                while len(waiting) < most and (one := next(left, None)) is not None:
                    waiting[remote.remote(function, one[1])] = one[0]
                if not waiting:
                    return
                done, _ = ray.wait(list(waiting), num_returns=1, timeout=LOOK_S)
                stopping.raise_if_requested()
                for reference in done:
                    number = waiting.pop(reference)
                    yield number, result_of(ray, reference)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def _caught(function: Callable[[Task], Result], task: Task) -> tuple[str, Any]:
    """Return the result, or the user's error as plain data; runs in a worker of Ray."""
    try:
        with _one_thread():
            return "done", function(task)
    except CapPruneError as error:
        return "error", error.as_json()


def result_of(ray: Any, reference: Any) -> Any:
    """Return the result of a task on Ray.

    Raises:
        CapPruneError: The task raised it, or its worker died each time.
    """
    try:
        kind, value = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise CapPruneError(
            "a task failed on Ray", found=_last_line(error), hint="run it without --on to see the full error"
        ) from error
    except ray.exceptions.RayError as error:
        raise CapPruneError(
            f"a worker of Ray died while it ran a task, {RETRIES + 1} times",
            found=_last_line(error),
            hint="it may be short of memory: use fewer --workers, or larger machines; the same command resumes",
        ) from error
    if kind == "error":
        raise error_from_json(value)
    return value


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{type(error).__name__}: {lines[0][:200]}" if len(lines) == 1 else lines[-1][:200]


@contextmanager
def _cluster(ray: Any, address: str, count: int) -> Iterator[None]:
    """Connect to a cluster, or start a local one and stop it afterwards. An existing connection is kept."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address:
        options |= {"address": address}
    else:
        options |= {"address": "local", "num_cpus": count, "include_dashboard": False}
    before = time.monotonic()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _check_reachable(address)
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise CapPruneError(
            "there is no Ray cluster that can be used" if address else "a local Ray cannot be started",
            where=address or None,
            found=f"{' '.join(str(error).split())[:300]} ({time.monotonic() - before:.0f} s)",
            hint="ray status --address ADDRESS shows a cluster; --on ray starts one on this machine",
        ) from error
    for number, handler in handlers.items():  # restored because Ray sets its own
        signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Check that a cluster responds; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("--on ray needs Ray", hint="pip install 'capprune[cluster]'") from error
    return ray
