"""Progress on stderr: lines, bars, and the state of a training run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capprune.cli.console import CLEAR, bar, say

if TYPE_CHECKING:
    from capprune.training.outcome import Progress as TrainingState


class TerminalProgress:
    """A `Progress` on stderr, with bars if it is a terminal."""

    def say(self, message: str, /) -> None:
        """Print a line."""
        say(message)

    def bar(self, label: str, /) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show a bar on a terminal, and a line for every quarter elsewhere."""
        return bar(label)

    def training(self, run: Path, /) -> Callable[[TrainingState], None]:
        """Show a run: a line that is rewritten on a terminal, or a line for each epoch elsewhere."""
        return _TrainingLines()


class _TrainingLines:
    """Shows the progress of a run."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last: TrainingState | None = None
        self._warned: frozenset[str] = frozenset()

    def __call__(self, progress: TrainingState) -> None:
        if progress.cider is not None:
            sparse = "" if self._last is None or self._last.sparsity is None else f", {self._last.sparsity:.2%} sparse"
            speed = "" if self._last is None else f", {self._last.captions_per_second:.0f} captions/s"
            clear = CLEAR if self._live else ""
            say(f"{clear}epoch {progress.epoch + 1}/{progress.epochs}: CIDEr-D {progress.cider:.3f}{sparse}{speed}")
            self._warn(progress)
        elif progress.step % 10 == 0:
            self._last = progress
            if self._live:
                minutes = progress.seconds_left / 60
                click.echo(
                    f"{CLEAR}step {progress.step}/{progress.steps}  loss {progress.loss:.3f}  "
                    f"{progress.captions_per_second:.0f} captions/s  {minutes:.0f} min left",
                    err=True,
                    nl=False,
                )

    def _warn(self, progress: TrainingState) -> None:
        """Print each sign that the run is not learning once, when it appears."""
        for sign in progress.signs:
            if sign.kind not in self._warned:
                say("\n".join(sign.lines()))
        kinds = frozenset(sign.kind for sign in progress.signs)
        if self._warned and not kinds:
            say("the run is learning now: the warnings above no longer apply")
        self._warned = kinds
