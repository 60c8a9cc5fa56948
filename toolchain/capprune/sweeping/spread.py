"""Parallel training of a sweep's runs by several workers, while the sweep scores them in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capprune.config.run import RunConfig
from capprune.sweeping.grid import RUNS, Combination
from capprune.training.run import LAST, STATE
from capprune.workers import Workers
from capprune_runtime.errors import error_from_json


@dataclass(frozen=True)
class TrainTask:
    """One run to train, as sent to a worker.

    Attributes:
        config: Config as YAML.
        folder: Folder of the run.
        cache: Folder of all caches.
    """

    config: str
    folder: Path
    cache: Path


class SpreadTraining:
    """Replaces `Sweep`'s training function: a call for a run waits until a worker has trained it.

    The first call starts all runs without dependencies. Any other run starts when the runs that it depends on have ended.

    Args:
        runs: Runs of the sweep, each after the runs that it depends on.
        folder: Folder of the sweep.
        workers: The workers.
        train: Trains one run in a worker; returns `CapPruneError.as_json` if it fails.
        cache: Folder of all caches.
        say: Receives progress messages.
    """

    def __init__(
        self,
        runs: Sequence[Combination],
        folder: Path,
        workers: Workers,
        *,
        train: Callable[[TrainTask], Mapping[str, Any] | None],
        cache: Path,
        say: Callable[[str], None],
    ) -> None:
        self._runs, self._folder, self._workers = runs, folder.resolve(), workers
        self._train, self._cache, self._say = train, cache.resolve(), say
        self._ended: dict[str, Mapping[str, Any] | None] = {}
        self._results = self._all()

    def __call__(self, config: RunConfig, folder: Path) -> None:
        """Wait for a run.

        Raises:
            CapPruneError: The run failed, or a worker died.
        """
        while folder.name not in self._ended:
            next(self._results)
        if (error := self._ended[folder.name]) is not None:
            raise error_from_json(error)

    def close(self) -> None:
        """Stop all running tasks."""
        self._results.close()

    def _all(self) -> Generator[None, None, None]:
        left = [run for run in self._runs if not self._is_trained(run)]
        self._ended |= {run.name: None for run in self._runs if run not in left}
        count = len(left)
        with self._workers.opened():
            while left:
                ready = [run for run in left if all(self._ended.get(name, self) is None for name in run.needs)]
                left = [run for run in left if run not in ready]
                for number, error in self._workers.run(self._train, [self._task(run) for run in ready]):
                    self._ended[ready[number].name] = error
                    self._say(f"trained {ready[number].name}" if error is None else f"{ready[number].name} failed")
                    yield
                if not ready:  # the remaining runs depend on a failed one, which the sweep reports
                    return
        self._say(f"trained {count} runs")

    def _task(self, run: Combination) -> TrainTask:
        return TrainTask(run.config.as_yaml(), self._place(run), self._cache)

    def _place(self, run: Combination) -> Path:
        return self._folder / RUNS / run.name

    def _is_trained(self, run: Combination) -> bool:
        folder = self._place(run)
        return (folder / LAST).is_file() and not (folder / STATE).is_file()
